"""Verify tokens: cache, freshness, and limits on Argon2."""
