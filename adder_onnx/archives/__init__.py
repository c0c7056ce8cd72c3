"""What must hold of a pickle, a zip or a tar before a library reads it."""
