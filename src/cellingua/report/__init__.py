"""Level 6: the report of a result: figures and one page."""
