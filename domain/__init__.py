"""What an API key is and what may happen to it: no SQL, no HTTP, no clock of its own, no I/O."""
