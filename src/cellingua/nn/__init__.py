"""Level 1: towers and their parts."""
