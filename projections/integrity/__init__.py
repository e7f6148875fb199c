"""Check that the ledger is as it was written; implements ``keyledger audit verify``."""
