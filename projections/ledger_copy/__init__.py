"""Copy a ledger into another database, and verify the copy."""
