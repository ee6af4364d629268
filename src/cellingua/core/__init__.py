"""Level 0: errors, configuration, files, runtime, progress. Imports nothing of the package."""
