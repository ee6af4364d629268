"""Level 1: pure functions of truth and prediction."""
