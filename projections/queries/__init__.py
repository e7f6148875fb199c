"""Read keys and events, for people and for programs."""
