"""The views: one module each, with its table and the code that maintains it."""
