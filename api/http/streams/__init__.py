"""Streams of events: `event_exports` end at the newest, `server_sent_events` wait for more."""
