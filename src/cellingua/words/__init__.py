"""Level 1: from what people write to ontology terms and texts."""
