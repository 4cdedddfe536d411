"""A conditional random field: tags that depend on each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm import _validation
from fastlstm._core import crf, library, memory
from fastlstm._core.threads import chosen_isa, get_num_threads
from fastlstm._parameters import Gradients, Parameters
from fastlstm.heads._base import Head
from fastlstm.heads._rows import Rows, labels, read_rows

Array = NDArray[Any]

_scratch = library.BufferCache()


class CRF(Head):
    r"""A linear-chain conditional random field: how likely a whole row of tags is.

    Of a row of T steps, tags y have the score

    .. math::

        s(y) = a_{y_1} + \sum_{t=1}^T e_{t, y_t} + \sum_{t=2}^T A_{y_{t-1} y_t} + b_{y_T}

    with emissions e, such as a linear layer makes them of the outputs of an LSTM, transitions A,
    and scores a and b of the first and the last tag; and the probability :math:`e^{s(y)} / Z`,
    where Z is the sum of :math:`e^{s}` over all :math:`K^T` rows of tags.

    Scores may be -inf, or as low as -10000, which makes a transition impossible.

    Parameters
    ----------
    num_tags : int
        K.
    dtype : {"float32", "float64"}
        Of the parameters, the emissions and all results.
    seed : int, optional
        Makes the initial parameters reproducible.

    Attributes
    ----------
    parameters : Parameters
        ``transitions`` [K, K] (from, to), ``start`` [K] and ``end`` [K], at first uniform in
        +-0.1; for `fastlstm.optim`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    Results do not depend on the number of threads and, on all instruction sets with fused
    multiply-adds, have the same bits; those of a row do not depend on the other rows of the batch.

    Examples
    --------
    Train it beside an LSTM, whose outputs are the emissions here; a tag is followed by itself or by
    the next one:

    >>> import numpy as np
    >>> import fastlstm
    >>> lstm, crf = fastlstm.LSTM(4, 3, seed=0), fastlstm.heads.CRF(3, seed=0)
    >>> optimizer = fastlstm.optim.Adam([lstm.parameters, crf.parameters], lr=0.05)
    >>> rng = np.random.default_rng(0)
    >>> tags = np.cumsum(rng.integers(0, 2, (10, 8)), axis=0) % 3
    >>> x = np.eye(4, dtype=np.float32)[tags] + rng.normal(0, 0.3, (10, 8, 4)).astype(np.float32)
    >>> for _ in range(60):
    ...     y, state, tape = lstm.forward(x)
    ...     nll, dy, grads = crf.loss(y, tags)
    ...     optimizer.step([lstm.backward(tape, dy)[2], grads])
    >>> bool(np.mean(np.stack(crf.decode(lstm(x)[0]), axis=1) == tags) > 0.95)
    True
    """

    def __init__(
        self, num_tags: int, *, dtype: DTypeLike = "float32", seed: int | None = None
    ) -> None:
        K = _validation.integer(num_tags, "num_tags", 1)
        kind = _validation.real_dtype(dtype, "dtype")
        _validation.check_size(K * (K + 2), kind, "num_tags")
        self._parameters = Parameters({"transitions": (K, K), "start": (K,), "end": (K,)}, kind)
        seed = None if seed is None else _validation.integer(seed, "seed", 0)
        draw = np.random.default_rng(seed).uniform
        self.parameters.flat = draw(-0.1, 0.1, self.parameters.size)

    @property
    def num_tags(self) -> int:
        """How many tags there are."""
        return len(self.parameters["start"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the parameters and of all results."""
        return self.parameters.flat.dtype

    def loss(
        self, emissions: ArrayLike, tags: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[Array, Array, Gradients]:
        """Return -log p(tags) of each row, and the gradients of the sum of all.

        Parameters
        ----------
        emissions : (T, B, K) array, or (T, K) of a single row
        tags : (T, B) array of integers, or (T,)
            From 0 to K - 1; what is beyond the end of a row is not read.
        lengths : (B,) array of integers, optional
            How many steps each row has, from 0 to T.  Default: T.

        Returns
        -------
        nll : (B,) array, or a number
            0 of a row without steps; infinity if the tags are impossible.
        demissions : array like the emissions
            Gradient of the sum of `nll`: the marginals, minus 1 at the tags; 0 beyond the end of a
            row.  It is finite for impossible tags, too, and 0 in a row whose tags are all
            impossible.
        grads : Gradients
            Those of the parameters; divide by B in `demissions` and here for the mean.

        Raises
        ------
        TypeError, ValueError
            If an array has the wrong dtype or shape, or a tag or a length is out of range.

        Examples
        --------
        >>> import numpy as np
        >>> crf = CRF(2, dtype="float64", seed=0)
        >>> crf.parameters.flat = np.zeros(8)
        >>> nll, demissions, grads = crf.loss(np.zeros((3, 1, 2)), [[0], [1], [1]])
        >>> bool(np.isclose(nll[0], np.log(2**3)))
        True
        >>> demissions[:, 0]
        array([[-0.5,  0.5],
               [ 0.5, -0.5],
               [ 0.5, -0.5]])
        >>> grads["transitions"]
        array([[ 0.5, -0.5],
               [ 0.5, -0.5]])
        """
        rows = self._rows(emissions, lengths)
        wanted = labels(tags, "tags", rows, self.num_tags)
        shapes = {name: array.shape for name, array in self.parameters.items()}
        grads = Gradients(shapes, memory.zeros((self.parameters.size,), self.dtype))
        nll, demissions = self._run(rows, wanted, grads.flat)
        return rows.out(nll, 0), rows.out(demissions), grads

    def marginals(self, emissions: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Return the probability of each tag at each step, given the whole row.

        Parameters
        ----------
        emissions, lengths
            As of `loss`.

        Returns
        -------
        array like the emissions
            0 beyond the end of a row, and in a row whose tags are all impossible.

        Raises
        ------
        TypeError, ValueError
            As `loss` does.

        Examples
        --------
        >>> import numpy as np
        >>> CRF(4, seed=0).marginals(np.ones((5, 3, 4), np.float32)).sum(axis=2).round(5).min()
        np.float32(1.0)
        """
        rows = self._rows(emissions, lengths)
        return rows.out(self._run(rows, None, None)[1])

    def decode(self, emissions: ArrayLike, lengths: ArrayLike | None = None) -> list[Array] | Array:
        """Return the most probable tags of each row, by Viterbi's algorithm.

        Parameters
        ----------
        emissions, lengths
            As of `loss`.

        Returns
        -------
        list of B arrays of integers, or an array
            As long as the rows.  Of equally probable ones, those whose last tag is the lowest, then
            the one before it, and so on.

        Raises
        ------
        TypeError, ValueError
            As `loss` does.

        Examples
        --------
        Single steps say 0, 1, 0; that a tag is followed by another one weighs more:

        >>> import numpy as np
        >>> crf = CRF(2)
        >>> crf.parameters.flat = np.zeros(8)
        >>> emissions = np.array([[1, 0], [0, 2], [1, 0]], np.float32)
        >>> crf.decode(emissions)
        array([0, 1, 0])
        >>> crf.parameters["transitions"] = [[0, -3], [-3, 0]]
        >>> crf.decode(emissions)
        array([0, 0, 0])
        """
        rows = self._rows(emissions, lengths)
        path = np.zeros(rows.values.shape[:2], np.intp)
        if rows.values.size:
            flat = self.parameters.snapshot()._flat
            crf.decode(
                chosen_isa(), _scratch, rows.values, flat, rows.lengths, path, get_num_threads()
            )
        return rows.pieces(path)

    def _rows(self, emissions: ArrayLike, lengths: ArrayLike | None) -> Rows:
        return read_rows(emissions, "emissions", lengths, self.num_tags, self.dtype)

    def _run(self, rows: Rows, wanted: Array | None, grads: Array | None) -> tuple[Array, Array]:
        """nll, or the logarithm of all paths, and marginals or their gradients; writes `grads`."""
        shape = rows.values.shape
        nll, marginals = np.zeros(shape[1], self.dtype), memory.empty(shape, self.dtype)
        if rows.values.size:
            flat = self.parameters.snapshot()._flat
            crf.loss(
                *(chosen_isa(), _scratch, rows.values, flat, rows.lengths, wanted),
                *(nll, marginals, grads, get_num_threads()),
            )
        return nll, marginals

    def _configuration(self) -> dict[str, Any]:
        return {"num_tags": self.num_tags, "dtype": self.dtype.name}

    @classmethod
    def _check_file(cls, tensors: Mapping[str, Array], options: dict[str, Any]) -> None:
        size = sum(tensor.size for tensor in tensors.values())
        K = _validation.integer(options.get("num_tags"), "num_tags", 1)
        if size != K * (K + 2):
            raise ValueError(f"expected {K * (K + 2)} numbers, got {size}")

    def __repr__(self) -> str:
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype.name!r}"
        return f"{type(self).__name__}({self.num_tags}{dtype})"
