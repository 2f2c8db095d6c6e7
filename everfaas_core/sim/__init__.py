"""A seeded world in which the production machines run: virtual time, simulated network, store, slots, and faults."""
