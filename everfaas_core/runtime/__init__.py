"""The loop that does the dispatcher's I/O, and what all roles share: waiting, signals, processes."""
