"""One part at a time, without the rest of the house."""
