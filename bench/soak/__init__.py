"""Much work over a long time, and whether anything has grown."""
