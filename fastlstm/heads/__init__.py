"""Heads: what makes predictions and losses of the outputs of a layer."""
