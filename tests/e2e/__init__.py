"""Real processes, started by the classic commands, and a client that knows only `requests` and `dill`."""
