"""Benchmarks of the project's claims about speed: one module each, and one command for all."""
