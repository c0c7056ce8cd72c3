"""Ending runs early: by a time, a signal, RunOptions, the end of the process."""
