"""Real processes, killed, stopped and cut off from each other; and a checker of what was seen of it."""
