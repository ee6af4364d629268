"""Level 2: how sure an answer may be. Arrays in, arrays out."""
