"""Level 2: the one training loop, its optimiser and its checkpoints."""
