"""Seal rows again, and check which pepper a ledger belongs to."""
