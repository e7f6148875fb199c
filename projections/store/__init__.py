"""Storage: engines, tables, stored events, and small durable tables."""
