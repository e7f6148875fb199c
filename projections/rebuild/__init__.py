"""Rebuild views from the events, and compare them with the events."""
