"""Level 1: from a file of cells to ranked tokens; training cells, real and simulated."""
