"""The documents are tested: their snippets run, their flags, links and tables are true, and the examples work."""
