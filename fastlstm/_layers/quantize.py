"""From a layer of float32 to one whose weights have fewer bits, for inference."""

from __future__ import annotations

from typing import Self

import numpy as np

from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm._layers.executor import Executor
from fastlstm._stored_weights import StoredWeights, stored_weights


class Quantizer(Executor):
    """What a layer can do to have weights of 8 or 16 bits."""

    def quantize(self, weights_dtype: str) -> Self:
        """Return a layer for inference whose weights take fewer bytes.

        A step of one row takes as long as its weights are read: 8 bits are up to four times as
        fast, and more where they then fit a nearer cache.

        Parameters
        ----------
        weights_dtype : {"int8", "bfloat16", "float16"}
            How W, U and the projection are stored; biases, peepholes, gains, gates and states stay
            float32.

            Of the 16-bit types the new layer computes, to the bit, as one of float32 whose weights
            were rounded to nearest even.

            Of "int8" each row of a matrix has a scale, s_w = its largest magnitude / 127, and
            integers q_w = w / s_w rounded to nearest even.  So has each row of x, and of the hidden
            state (of an `SLSTM`, the part of each head), at each step:
            ``q_x = x * (127 / max |x|)``, ``s_x = max |x| / 127``.  A product is the exact sum of
            q_x q_w times (s_x s_w).  No other row of the batch, step or thread counts, so results
            have the same bits as always.  A row below ``2**-100`` counts as zeros; one with
            infinity or NaN gives NaN.

        Returns
        -------
        layer of the same class
            Calls, streams, pools and `trace` work, with all arguments; `forward`, `backward` and
            optimizers raise ``ValueError`` or ``TypeError``.  Later edits of this layer do not
            change it.

        Raises
        ------
        TypeError, ValueError
            If `weights_dtype` is none of these, the layer is not of float32 or is quantized
            already, weights are infinite or NaN, beyond 65504 for float16, or have more than
            132,000 columns for int8.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(64, 128, seed=0)
        >>> small = lstm.quantize("int8")
        >>> small
        LSTM(64, 128, weights_dtype='int8')
        >>> x = np.random.default_rng(0).standard_normal((100, 64), dtype=np.float32)
        >>> bool(abs(small(x)[0] - lstm(x)[0]).max() < 0.01)
        True
        """
        check_weight_type(weights_dtype)
        if self._weights_dtype:
            raise ValueError(
                f"quantize: expected a layer of float32 weights, got {self._weights_dtype}"
            )
        if self.dtype != np.float32:
            kind = type(self).__name__
            raise ValueError(
                f"quantize: expected a layer of float32, got {self.dtype}; cast it, "
                f'fastlstm.{kind}.from_torch(layer.state_dict(), dtype="float32")'
            )
        return self._with_weights(stored_weights(self.parameters.snapshot(), weights_dtype))

    def _with_weights(self, weights: StoredWeights) -> Self:
        """A layer like this one, but for its weights."""
        small = type(self).__new__(type(self))
        small.__setstate__(self.__getstate__() | {"_weights_dtype": weights.weights_dtype,
                                                  "parameters": weights})  # fmt: skip
        small.isa, small._num_threads = self.isa, self._num_threads
        return small


def check_weight_type(weights_dtype: str) -> None:
    """Refuse what is no type of weights in fewer bits."""
    if not isinstance(weights_dtype, str):
        raise TypeError(f"weights_dtype: expected a str, got {type(weights_dtype).__name__}")
    if weights_dtype not in WEIGHT_TYPES[1:]:
        expected = ", ".join(map(repr, WEIGHT_TYPES[1:]))
        raise ValueError(f"weights_dtype: expected one of {expected}, got {weights_dtype!r}")
