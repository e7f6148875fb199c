"""Addresses, and limits on network traffic."""
