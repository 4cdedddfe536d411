"""Weights from Flax and back: the recurrent cells of linen and nnx.

Flax itself is not imported: parameters are nested mappings of arrays.
"""

from fastlstm.flax._read import from_flax
from fastlstm.flax._write import to_flax_params

__all__ = ["from_flax", "to_flax_params"]
