"""Many clients that wait, and one that must not notice them."""
