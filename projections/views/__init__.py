"""The views: a file for each, with its table and the code that maintains it."""
