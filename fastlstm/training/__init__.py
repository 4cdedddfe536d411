"""Training: the loop, its batches, its history and its progress."""
