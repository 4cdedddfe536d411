"""Recurrent layers: what they have in common, and the cells."""
