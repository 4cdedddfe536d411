"""The binding: what Python sees of the C core."""
