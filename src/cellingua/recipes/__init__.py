"""Level 4: how a model is trained, a page each."""
