"""HTTP/1.1: read requests from a connection and write answers to it."""
