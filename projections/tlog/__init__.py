"""Formats of the transparency log: Merkle tree, checkpoints, tiles and audit packs."""
