"""Adder nodes that another tool replaced by their function bodies, turned back into adder nodes."""
