"""Level 5: AnnData in, answers out."""
