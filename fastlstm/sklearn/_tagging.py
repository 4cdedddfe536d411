"""The network of a tagger: embedding or features -> recurrent layer -> linear -> CRF or softmax."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._parameters import Gradients, Parameters
from fastlstm.heads import CRF, Linear
from fastlstm.heads._softmax import log_softmax
from fastlstm.heads._sums import sum_in_order
from fastlstm.sklearn._network import MOST_SEED, Network
from fastlstm.sklearn._readout import EveryStep
from fastlstm.sklearn._sequences import inside
from fastlstm.sklearn._tokens import UNKNOWN, Vocabulary

Array = NDArray[Any]


class TaggingNetwork(Network):
    """A `Network` that reads all steps; its tags may depend on each other, and read tokens.

    The linear layer and the CRF are computed in float64.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Batch first.
    outputs : int
        Tags, K.
    rng : RandomState
        Of the initial weights.
    crf : bool
        Whether a tag depends on the one before.
    vocabulary : dict, optional
        The numbers of the tokens, from 1 on; None: features are read.
    """

    def __init__(
        self,
        layer: Layer[Any, Any, Any],
        outputs: int,
        rng: np.random.RandomState,
        crf: bool,
        vocabulary: Vocabulary | None,
    ) -> None:
        self.layer, self.readout = layer, EveryStep()
        width = layer._directions * layer.hidden_size
        self.linear = Linear(width, outputs, dtype="float64", seed=int(rng.randint(MOST_SEED)))
        self.out = self.linear.parameters
        self.crf = CRF(outputs, dtype="float64", seed=int(rng.randint(MOST_SEED))) if crf else None
        self.embedding: Parameters | None = None
        self.vocabulary = vocabulary
        if vocabulary is not None:
            vectors = rng.standard_normal((len(vocabulary) + 1, layer.input_size))
            vectors[UNKNOWN] = 0
            self.embedding = Parameters({"weight": vectors.astype(layer.dtype)})

    @property
    def trainable(self) -> list[Parameters]:
        """What an optimizer updates."""
        parts = [self.layer.parameters, self.out]
        parts += [] if self.crf is None else [self.crf.parameters]
        return parts + ([] if self.embedding is None else [self.embedding])

    def quantize(self, weights_dtype: str) -> TaggingNetwork:
        """A network for prediction, whose layer has weights of fewer bits."""
        small = super().quantize(weights_dtype)
        assert isinstance(small, TaggingNetwork)
        small.linear, small.crf = copy.deepcopy(self.linear), copy.deepcopy(self.crf)
        small.out = small.linear.parameters
        if self.embedding is not None:
            small.embedding = Parameters({"weight": self.embedding["weight"].astype(np.float32)})
        return small

    def _options(self) -> dict[str, Any]:
        return {} if self.embedding is None else {"embedding": self.embedding["weight"]}

    def _outputs_of(self, x: Array, lengths: Array | None) -> tuple[Array, Any]:
        y, state = self.layer(x, lengths=lengths, **self._options())
        return y, state

    def _linear(self, read: Array) -> Array:
        return self.linear(read)

    def gradients(
        self, x: Array, lengths: Array | None, targets: Array, weights: Array
    ) -> tuple[float, list[Gradients]]:
        """The loss of a batch, and its gradients in the order of `trainable`.

        Targets are tags (N,), of all steps; weights are the same for all.  The loss is the sum of
        ``-weight * log p(tags)`` over sequences, divided by B.
        """
        y, state, tape = self.layer.forward(x, lengths=lengths, **self._options())
        emissions, linear_tape = self.linear.forward(self._read(y, state, lengths))
        steps = np.full(len(y), y.shape[1]) if lengths is None else lengths
        scale = weights[0] / len(y)
        losses, demissions, crf = self._losses(emissions, targets, steps)
        dread, linear = self.linear.backward(linear_tape, demissions * scale)
        assert dread is not None
        gradient = self.readout.back(self.layer, dread, y, lengths)
        embedded = self.embedding is not None
        dx, _, layer = self.layer.backward(tape, *gradient, input_gradient=embedded)
        grads = [layer, linear]
        for part in crf:
            part.flat[...] *= scale
            grads.append(part)
        if self.embedding is not None:
            assert dx is not None
            dx[UNKNOWN] = 0  # it stays what it is
            grads.append(Gradients({"weight": dx.shape}, dx.ravel()))
        return float(sum_in_order(losses) * scale), grads

    def losses(self, emissions: Array, targets: Array, lengths: Array) -> Array:
        """-log p of the tags of each sequence, or of each step without a CRF."""
        return self._losses(emissions, targets, lengths)[0]

    def _losses(
        self, emissions: Array, targets: Array, lengths: Array
    ) -> tuple[Array, Array, list[Gradients]]:
        """They, and gradients of their sum: of the emissions, and of the CRF if there is one."""
        if self.crf is None:
            logs = log_softmax(emissions)
            places = np.arange(len(targets))
            gradient = np.exp(logs)
            gradient[places, targets] -= 1
            return -logs[places, targets], gradient, []
        steps = inside(lengths, lengths.max(initial=0))
        tags = np.zeros(steps.shape, np.intp)
        tags[steps] = targets
        # Batch first here, as steps of a sequence lie together; the CRF has time first.
        losses, gradient, grads = self.crf.loss(_padded(emissions, lengths), tags.T, lengths)
        return losses, gradient.swapaxes(0, 1)[steps], [grads]

    def tags(self, emissions: Array, lengths: Array) -> Array:
        """(N,) array: the most probable tags of all sequences, one after another."""
        if self.crf is None:
            best: Array = emissions.argmax(axis=1)
            return best
        return np.concatenate(self.crf.decode(_padded(emissions, lengths), lengths))

    def log_probabilities(self, emissions: Array, lengths: Array) -> Array:
        """(N, K) array: of each tag at each step; with a CRF given the whole sequence."""
        if self.crf is None:
            return log_softmax(emissions)
        marginals = self.crf.marginals(_padded(emissions, lengths), lengths)
        with np.errstate(divide="ignore"):
            logs: Array = np.log(marginals.swapaxes(0, 1)[inside(lengths, len(marginals))])
        return logs


def _padded(emissions: Array, lengths: Array) -> Array:
    """(T, B, K) array, of emissions (N, K)."""
    steps = inside(lengths, lengths.max(initial=0))
    padded = np.zeros((*steps.shape, emissions.shape[1]))
    padded[steps] = emissions
    return padded.swapaxes(0, 1)
