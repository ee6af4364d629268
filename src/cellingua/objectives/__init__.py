"""Level 1: losses, one a file."""
