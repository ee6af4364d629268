"""Level 8: the command line, a verb a file."""
