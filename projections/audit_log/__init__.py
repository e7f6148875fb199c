"""Sign checkpoints, prove entries, and export audit packs."""
