"""The pure dispatch machine and what it is made of. No clock, no I/O, no randomness: `step(now, events) -> actions`."""
