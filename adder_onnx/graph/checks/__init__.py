"""What must hold of a model from a stranger before a library looks into it, or memory is taken."""
