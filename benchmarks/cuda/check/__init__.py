"""Whether everything works on a GPU that is new to it: ``python -m benchmarks.cuda --check``."""
