"""Our runtime against what a user would run instead, on a CPU: ``python -m benchmarks.race``."""
