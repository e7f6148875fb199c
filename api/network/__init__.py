"""Addresses, and limits on what the network may send."""
