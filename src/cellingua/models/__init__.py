"""Level 3: what a model is, and the folder it is saved in."""
