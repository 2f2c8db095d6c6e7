"""How the rate depends on the backlog and on the workers, measured and drawn."""
