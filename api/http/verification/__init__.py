"""The endpoints that verify tokens."""
