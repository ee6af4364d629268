"""Level 1: drugs, and how cell lines responded to them."""
