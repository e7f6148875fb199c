"""The forms in which answers leave: JSON, CSV, lines and cursors."""
