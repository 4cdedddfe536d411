"""Files: replaced only when the new one is complete, and tensors in them."""
