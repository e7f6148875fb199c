"""What is claimed about speed: each claim is a module, and one command measures them all."""
