"""Everything derived from events: how it is stored, kept, rebuilt and proved."""
