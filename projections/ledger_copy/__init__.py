"""Copy a ledger into another database, and check the copy."""
