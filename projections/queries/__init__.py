"""Read keys and events, for people and programs."""
