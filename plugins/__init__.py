"""The built-in plugins. Each folder is one plugin: its name is its entry-point name and its name on the command line."""
