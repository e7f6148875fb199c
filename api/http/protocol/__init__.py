"""HTTP/1.1: reads requests from a connection and writes answers to it."""
