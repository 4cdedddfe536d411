"""A language model of characters."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from fastlstm import _validation
from fastlstm._core import memory
from fastlstm._io.atomic import StrPath
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.quantize import check_weight_type
from fastlstm._parameters import Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm._validation import non_negative
from fastlstm.heads._softmax import Array, Indices, softmax_loss_backward, sums_of_shards
from fastlstm.models import _file
from fastlstm.models._evaluation import mean_bits
from fastlstm.models._generation import generate
from fastlstm.models._text import Alphabet, split
from fastlstm.training._batches import Codes
from fastlstm.training._checkpoint import Checkpoints, fingerprint
from fastlstm.training._history import History, Progress
from fastlstm.training._loop import train
from fastlstm.training._plan import Plan

State = tuple[Array, Array]


class LanguageModel:
    """Predicts the next character: embedding -> LSTM -> linear -> softmax, in float32.

    Parameters
    ----------
    alphabet : str
        The model knows the characters of this text, such as the text it is to be trained on.
        It has no symbol for others, because the probability of "any other character" cannot
        be compared between models: they are an error wherever a text is given.
    embedding_size, hidden_size, num_layers : int
        Sizes of the embedding and of the LSTM.
    dropout : float
        Probability of a zero between the layers of the LSTM, while training; with one layer it
        has no effect, and a warning says so.
    seed : int, optional
        Makes the initial weights and the dropout reproducible.

    Attributes
    ----------
    lstm : LSTM
    parameters : Parameters
        ``embedding.weight`` [V, E], ``linear.weight`` [V, H] and ``linear.bias`` [V] for V
        characters, initialised as in torch.

    Examples
    --------
    >>> text = "the cat sat on the mat. " * 200
    >>> model = LanguageModel(text, hidden_size=32, seed=1)
    >>> history = model.fit(text, steps=60, batch_size=8, lr=0.03)
    >>> history.records[-1].held_out_bits < 0.5
    True
    >>> model.generate("the cat ", 16, temperature=0)
    'sat on the mat. '
    """

    def __init__(
        self,
        alphabet: str,
        *,
        embedding_size: int = 64,
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self._alphabet = Alphabet(alphabet)
        sizes = {
            "embedding_size": _validation.integer(embedding_size, "embedding_size", 1),
            "hidden_size": _validation.integer(hidden_size, "hidden_size", 1),
            "num_layers": _validation.integer(num_layers, "num_layers", 1),
        }
        rng = _generator(seed)
        self.lstm = LSTM(*sizes.values(), dropout=dropout, seed=int(rng.integers(1 << 63)))
        self._config: dict[str, Any] = {**sizes, "dropout": self.lstm.dropout}
        count = len(self._alphabet)
        self._shapes = _file.shapes_of_heads(count, self._config)
        self.parameters = Parameters(self._shapes, np.float32)
        bound = hidden_size**-0.5
        self.parameters["embedding.weight"] = rng.standard_normal((count, embedding_size))
        for name in ("linear.weight", "linear.bias"):
            self.parameters[name] = rng.uniform(-bound, bound, self._shapes[name])

    @property
    def alphabet(self) -> str:
        """The characters the model knows, sorted."""
        return self._alphabet.characters

    @property
    def weights_dtype(self) -> str:
        """How the weights of the LSTM are stored: "float32", or what `quantize` was asked for."""
        return self.lstm.weights_dtype

    @property
    def trainable(self) -> list[Parameters]:
        """What an optimizer updates: of the LSTM, and of embedding and linear layer."""
        return [self.lstm.parameters, self.parameters]

    def fit(
        self,
        text: str,
        *,
        held_out: float | str = 0.1,
        steps: int | None = None,
        seconds: float | None = None,
        epochs: float | None = None,
        batch_size: int = 32,
        chunk: int = 64,
        lr: float = 3e-3,
        clip_norm: float = 1.0,
        evaluations: int = 10,
        progress: Progress | None = None,
        checkpoint: StrPath | None = None,
        checkpoint_every: int | None = None,
        resume: bool | Literal["auto"] = False,
    ) -> History:
        """Train by truncated BPTT with Adam, the learning rate falling linearly to 0.

        Each row of the batch reads its own part of the text, chunk after chunk, with the
        state carried on between chunks.  Ctrl-C ends the run after the current step and keeps
        what was learned (in the main thread, where Python's own handler is in place).

        Parameters
        ----------
        text : str
            What to train on.
        held_out : float or str
            A text that is only measured, or the part at the end of `text` to hold out as one:
            0.1 is the last tenth, 0 nothing.
        steps, seconds, epochs
            The length of the run: exactly one of them is given.  An epoch reads as many
            characters as there are.
        batch_size, chunk : int
            Rows, and characters per row and step.
        lr : float
            Learning rate at the start.
        clip_norm : float
            Largest norm of the gradients of a step.
        evaluations : int
            How often, evenly spaced and at the end, the held-out text is measured.
        progress : callable, optional
            Called with a `Record` after every step.  If it has a method ``resumed``, that is
            called with the number of steps when a run goes on.
        checkpoint : path-like, optional
            Save the run in this file, from which it goes on with the same bits as if it had never
            stopped: now and then, at the end, when Ctrl-C ends it, and before the process ends
            when it gets SIGTERM or SIGUSR1.  The file is replaced only when a new one is complete.
        checkpoint_every : int, optional
            Steps from one checkpoint to the next, 1000 by default: so a run of the usual size that
            is killed loses less than a minute, and spends next to no time on writing.
        resume : bool or "auto"
            Go on from the checkpoint, which has to be of a run with the same arguments; "auto": if
            the file is there.  A run that had come to its end returns at once.

        Returns
        -------
        History

        Raises
        ------
        FloatingPointError
            The loss is not finite any more.
        OSError
            The checkpoint cannot be written or read.
        SystemExit
            SIGTERM or SIGUSR1 came, and the checkpoint is complete: 128 and the number of the
            signal.
        ValueError
            An argument cannot be meant; or the checkpoint is damaged, or of another run: then the
            message names what differs.

        Examples
        --------
        A run that Ctrl-C or a signal stops goes on when the same lines run again:

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
        >>> text = "the cat sat on the mat. " * 200
        >>> model = LanguageModel(text, hidden_size=32, seed=1)
        >>> history = model.fit(text, steps=60, checkpoint=path, resume="auto")
        >>> again = LanguageModel(text, hidden_size=32)
        >>> again.fit(text, steps=60, checkpoint=path, resume="auto") == history
        True
        """
        self.lstm._check_trainable("fit", "model")
        codes, rest = split(self._alphabet, text, held_out)
        plan = Plan.of(
            len(codes),
            steps=steps,
            seconds=seconds,
            epochs=epochs,
            batch_size=batch_size,
            chunk=chunk,
            lr=lr,
            clip_norm=clip_norm,
            evaluations=evaluations,
        )
        settings = {
            **self._config,
            "alphabet": fingerprint(self._alphabet.points),
            "text": fingerprint(codes),
            "held_out": fingerprint(rest),
            **asdict(plan),
        }
        checkpoints = Checkpoints.of(checkpoint, checkpoint_every, resume, settings)
        evaluate = (lambda: self._mean_bits(rest, plan.batch_size)) if len(rest) else None
        return train(self, codes, plan, evaluate, progress, checkpoints)

    def gradients(
        self, inputs: Indices, targets: Indices, state: State | None
    ) -> tuple[float, list[Gradients], State]:
        """Return the loss of a chunk, its gradients in the order of `trainable`, and the state.

        Parameters
        ----------
        inputs, targets : [T, B] arrays
            Codes of characters (their places in `alphabet`), and of those that follow.
        state : (h, c), optional
            The state before the chunk, [L, B, H] each; default zeros.
        """
        self.lstm._check_trainable("gradients", "model")
        embedding = self.parameters["embedding.weight"]
        y, state, tape = self.lstm.forward(inputs, state, embedding=embedding)
        heads = Gradients(self._shapes, memory.empty((self.parameters.size,), np.dtype("f4")))
        nll, dy = softmax_loss_backward(self.lstm, self.parameters, y, targets, heads)
        heads["embedding.weight"][...], _, lstm = self.lstm.backward(tape, dy)
        return float(nll.mean(dtype=np.float64)), [lstm, heads], state

    def shard_gradients(
        self, inputs: Indices, targets: Indices, state: State | None, shards: Shards
    ) -> tuple[Array, list[ShardGradients], State]:
        """Return the same of each shard, for the rows of one process.

        The sums of all shards, losses divided by T times the rows of the whole batch, are those of
        `gradients`.

        Parameters
        ----------
        inputs, targets, state
            As for `gradients`, of the rows of these shards.
        shards : Shards

        Returns
        -------
        (shards,) array of float64
            Sums of losses.
        list of ShardGradients
        (h, c)
        """
        self.lstm._check_trainable("shard_gradients", "model")
        embedding = self.parameters["embedding.weight"]
        y, state, tape = self.lstm.forward(inputs, state, embedding=embedding, shards=shards)
        flats = memory.empty((len(shards.starts) - 1, self.parameters.size), np.dtype("f4"))
        heads = ShardGradients(self._shapes, flats, shards)
        nll, dy = softmax_loss_backward(self.lstm, self.parameters, y, targets, heads)
        heads.of("embedding.weight")[...], _, lstm = self.lstm.backward(tape, dy)
        return sums_of_shards(nll, shards), [lstm, heads], state

    @property
    def _generators(self) -> list[np.random.Generator]:
        """What draws random choices in `gradients`."""
        return [self.lstm._dropout_keys]

    def _zero_state(self, rows: int) -> State:
        """The state before a text."""
        h, c = np.zeros((2, self.lstm.num_layers, rows, self.lstm.hidden_size), np.float32)
        return h, c

    def bits_per_character(self, text: str, *, rows: int = 1) -> float:
        """Return the mean of -log2 p(character) over a text, given all that precedes it.

        The first character is given; the state before it is zero.

        Parameters
        ----------
        text : str
            At least two characters.
        rows : int
            1 reads the text in one piece.  More read as many parts of it at once, which is
            several times faster, each but the first after a warm-up of 128 characters.
        """
        codes = self._alphabet.encode(text)
        if len(codes) < 2:
            raise ValueError(f"text: expected at least 2 characters, got {len(codes)}")
        return self._mean_bits(codes, _validation.integer(rows, "rows", 1))

    def perplexity(self, text: str, *, rows: int = 1) -> float:
        """Return 2 to the power of `bits_per_character`."""
        return float(2 ** self.bits_per_character(text, rows=rows))

    def _mean_bits(self, codes: Codes, rows: int) -> float:
        return mean_bits(self.lstm, self.parameters, codes, rows)

    def generate(
        self, prompt: str, n: int, temperature: float = 1.0, seed: int | None = None
    ) -> str:
        """Return `n` characters that go on from the prompt, one streaming step each.

        Parameters
        ----------
        prompt : str
            At least one character, all known to the model.
        n : int
            How many characters to write.
        temperature : float
            Divides the logits: below 1 keeps to the likely, 0 always takes the likeliest.
        seed : int, optional
            On one machine the same seed writes the same text.  On another one it may differ: NumPy
            computes the last layer by BLAS, whose roundings depend on the processor.
        """
        codes = self._alphabet.encode(prompt, "prompt")
        if not len(codes):
            raise ValueError("prompt: expected at least one character, got an empty text")
        n = _validation.integer(n, "n", 0)
        _validation.check_size(n, np.dtype(np.float64), "n")  # of the random numbers
        temperature = non_negative("temperature", temperature)
        uniform = _generator(seed).random(n)
        return self._alphabet.decode(
            generate(self.lstm, self.parameters, codes, uniform, temperature)
        )

    def quantize(self, weights_dtype: str) -> LanguageModel:
        """Return a model for inference whose LSTM has weights of fewer bits.

        Embedding and linear layer stay float32.  Later edits of this model do not change it.

        Parameters
        ----------
        weights_dtype : {"int8", "bfloat16", "float16"}
            As of `LSTM.quantize`.

        Returns
        -------
        LanguageModel
            It measures, generates and is saved as this one does; `fit` and `gradients` raise
            ``ValueError``.

        Raises
        ------
        TypeError, ValueError
            As `LSTM.quantize` does.

        Examples
        --------
        >>> text = "the cat sat on the mat. " * 200
        >>> model = LanguageModel(text, hidden_size=32, seed=1)
        >>> history = model.fit(text, steps=60, batch_size=8, lr=0.03)
        >>> small = model.quantize("int8")
        >>> small.generate("the cat ", 16, temperature=0)
        'sat on the mat. '
        >>> abs(small.bits_per_character(text) - model.bits_per_character(text)) < 0.01
        True
        """
        small = copy.copy(self)
        small.lstm = self.lstm.quantize(weights_dtype)
        small.parameters = copy.deepcopy(self.parameters)
        return small

    def save(self, path: StrPath) -> None:
        """Save as .safetensors, with configuration and alphabet in the metadata.

        A file that exists is replaced only when the new one is complete.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        lstm = {f"lstm.{name}": array for name, array in self.lstm._tensors().items()}
        config = {"alphabet": self.alphabet, **self._config}
        if self.weights_dtype != "float32":
            config["weights_dtype"] = self.weights_dtype
        _file.write(path, {**lstm, **self.parameters.snapshot()}, config)

    @classmethod
    def load(cls, path: StrPath, weights_dtype: str | None = None) -> LanguageModel:
        """Load a model that `save` wrote.

        Parameters
        ----------
        path : path-like
        weights_dtype : {"int8", "bfloat16", "float16"}, optional
            As of `quantize`; a file of such weights needs none.

        Raises
        ------
        OSError
            The file cannot be read.
        TypeError, ValueError
            It is not such a model, or not all of one, or cannot have such weights.
        """
        if weights_dtype is not None:
            check_weight_type(weights_dtype)
        tensors, config = _file.read(path)
        stored = config.pop("weights_dtype", None)
        model = cls(config.pop("alphabet"), **config)
        lstm = {n.removeprefix("lstm."): a for n, a in tensors.items() if n.startswith("lstm.")}
        model.lstm = model.lstm._with_tensors(lstm, stored)
        for name in model.parameters:
            model.parameters[name] = tensors[name]
        return model if weights_dtype in (None, stored) else model.quantize(weights_dtype)

    def __repr__(self) -> str:
        options = dict(self._config)
        if self.weights_dtype != "float32":
            options["weights_dtype"] = self.weights_dtype
        config = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"LanguageModel({len(self._alphabet)} characters, {config})"


def _generator(seed: int | None) -> np.random.Generator:
    return np.random.default_rng(None if seed is None else _validation.integer(seed, "seed", 0))
