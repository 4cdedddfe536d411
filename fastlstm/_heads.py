"""The two ends of a language model: the embedding before its LSTM, the softmax after it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastlstm._matmul import quiet_matmul
from fastlstm._parameters import Gradients, Parameters

Array = NDArray[np.float32]
Indices = NDArray[np.intp]

_BLOCK = 512  # predictions: their logits, and the LSTM's outputs, stay in the cache


def embed(weight: Array, codes: Indices) -> Array:
    """Return the rows [..., E] of `weight` [V, E] that the codes [...] name."""
    # The codes are known to be good, and the other modes check or copy them again.
    return weight.take(codes, axis=0, mode="clip")


def embed_backward(codes: Indices, dx: Array, out: Array) -> None:
    """Write the gradient of the embedding: out[v] = the sum of dx where the code is v.

    Sorting brings equal codes together and one call sums the runs: 7 times faster than
    ``np.add.at``, and unlike a product with a one-hot matrix it does not grow with V.
    """
    codes, dx = codes.reshape(-1), dx.reshape(-1, dx.shape[-1])
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    out.fill(0)
    out[ordered[first]] = np.add.reduceat(dx.take(order, axis=0), first, axis=0)


class SoftmaxOutput:
    """Linear layer and softmax, block by block, with work space kept from call to call.

    Logits are stored [V, N], a column per prediction: the sums over V then run along memory.

    Parameters
    ----------
    parameters : Parameters
        With ``linear.weight`` [V, H] and ``linear.bias`` [V].
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._logits = np.empty((0, len(parameters["linear.bias"]), _BLOCK), np.float32)
        self._dweights = np.empty((0, *parameters["linear.weight"].shape), np.float32)

    def nll(self, y: Array, targets: Indices) -> Array:
        """Return -log p(target) [N] for the LSTM's outputs y [N, H] and targets [N]."""

        def block_nll(block: slice, logits: Array) -> Array:
            _, total, target = self._exponentials(y[block], targets[block], logits)
            return np.log(total) - target

        return np.concatenate(list(map(block_nll, *self._blocks(len(y)))))

    def loss_backward(self, y: Array, targets: Indices, grads: Gradients) -> tuple[float, Array]:
        """Return the mean of -log p(target) and its gradient dy [N, H].

        The gradients of the linear layer are written to `grads`.
        """
        count, dy, weight = len(y), np.empty_like(y), self._parameters["linear.weight"]

        def block_backward(block: slice, logits: Array, dweight: Array) -> tuple[float, Array]:
            exponentials, total, target = self._exponentials(y[block], targets[block], logits)
            loss = np.sum(np.log(total) - target, dtype=np.float64)
            dlogits = np.multiply(exponentials, 1 / (count * total), out=exponentials)
            dlogits[targets[block], np.arange(len(total))] -= np.float32(1 / count)
            quiet_matmul(dlogits, y[block], out=dweight)
            quiet_matmul(dlogits.T, weight, out=dy[block])
            return float(loss), dlogits.sum(axis=1)

        blocks, logits = self._blocks(count)
        if len(self._dweights) < len(blocks):
            self._dweights = np.empty((len(blocks), *weight.shape), np.float32)
        dweights = self._dweights[: len(blocks)]
        losses, dbiases = zip(*map(block_backward, blocks, logits, dweights), strict=True)
        np.sum(dweights, axis=0, out=grads["linear.weight"])
        np.sum(dbiases, axis=0, out=grads["linear.bias"])
        return sum(losses) / count, dy

    def _blocks(self, count: int) -> tuple[list[slice], list[Array]]:
        """Cut `count` predictions into blocks, with room for the logits of each."""
        blocks = [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
        if len(self._logits) < len(blocks):
            self._logits = np.empty((len(blocks), *self._logits.shape[1:]), np.float32)
        return blocks, list(self._logits[: len(blocks)])

    def _exponentials(
        self, y: Array, targets: Indices, logits: Array
    ) -> tuple[Array, Array, Array]:
        """exp(logits - max) [V, N], its sum over V [N], and the target's logit - max [N]."""
        logits = logits[:, : len(y)]
        quiet_matmul(y, self._parameters["linear.weight"].T, out=logits.T)
        logits += self._parameters["linear.bias"][:, None]
        logits -= logits.max(axis=0)
        target = logits[targets, np.arange(len(y))]
        exponentials = np.exp(logits, out=logits)
        return exponentials, exponentials.sum(axis=0), target
