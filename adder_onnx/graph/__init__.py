"""From bytes to a plan: load, validate, infer shapes, fuse epilogues, partition."""
