"""Seal rows again, and check which pepper a ledger is sealed with."""
