"""Migrations of the durable tables; views are replayed instead."""
