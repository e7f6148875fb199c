"""Rules of API keys: no SQL, no HTTP, no I/O, and no clock of their own."""
