"""Ours beside its peers, each installed in an environment of its own: see README.md."""
