"""The doors: HTTP, the console's pages, the command line. Nothing commits here."""
