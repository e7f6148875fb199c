"""The console: pages for people, on the same commands and under the same rules as the HTTP API."""
