"""Whole systems, measured over HTTP as a client sees them."""
