"""Formats of answers: JSON, CSV, NDJSON and cursors."""
