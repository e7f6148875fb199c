"""Check that the ledger is as it was written: what ``keyledger audit verify`` does."""
