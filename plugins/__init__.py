"""The built-in plugins. A folder is a plugin: its name is its entry-point name and its name on the command line."""
