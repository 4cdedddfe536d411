"""A language model of characters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._io.atomic import StrPath
from fastlstm._layers.base import Layer
from fastlstm._layers.cells import CELLS, check_cell
from fastlstm._layers.forget_bias import Bias
from fastlstm._layers.quantize import check_weight_type
from fastlstm._parameters import Parameters
from fastlstm._validation import non_negative
from fastlstm.models import _file
from fastlstm.models._evaluation import log_probabilities
from fastlstm.models._generation import generate
from fastlstm.models._prefixes import PrefixModel
from fastlstm.models._text import Alphabet, check_text
from fastlstm.models._training import Training


class LanguageModel(Training):
    """Predicts the next character: embedding -> LSTM -> linear -> softmax, in float32.

    To see what the LSTM is good for, an RNN or a GRU can take its place.

    Parameters
    ----------
    alphabet : str
        The model knows the characters of this text, such as the text it is to be trained on.
        It has no symbol for others, because the probability of "any other character" cannot
        be compared between models: they are an error wherever a text is given.
    embedding_size, hidden_size, num_layers : int
        Sizes of the embedding and of the recurrent layer.
    cell : {"lstm", "gru", "rnn", "slstm"}
        The cell of the recurrent layer; an sLSTM has four heads.
    dropout : float
        Probability of a zero between recurrent layers, while training; with one layer it
        has no effect, and a warning says so.
    forget_bias, max_lag
        Of the recurrent layer, as for `LSTM`.
    seed : int, optional
        Makes the initial weights and the dropout reproducible.

    Attributes
    ----------
    lstm : LSTM, GRU, RNN or SLSTM
        The recurrent layer.
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
        cell: str = "lstm",
        dropout: float = 0.0,
        forget_bias: Bias = None,
        max_lag: int | None = None,
        seed: int | None = None,
    ) -> None:
        check_cell(cell, CELLS)
        self._alphabet = Alphabet(alphabet)
        sizes = {
            "embedding_size": _validation.integer(embedding_size, "embedding_size", 1),
            "hidden_size": _validation.integer(hidden_size, "hidden_size", 1),
            "num_layers": _validation.integer(num_layers, "num_layers", 1),
        }
        rng = _generator(seed)
        layer_seed = int(rng.integers(1 << 63))
        given = {"forget_bias": forget_bias, "max_lag": max_lag}
        opened = {name: value for name, value in given.items() if value is not None}
        self.lstm: Layer[Any, Any, Any] = CELLS[cell](
            *sizes.values(), dropout=dropout, seed=layer_seed, **opened
        )
        self._config: dict[str, Any] = {**sizes, "dropout": self.lstm.dropout}
        if cell != "lstm":
            self._config["cell"] = cell
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
        """How the weights of `lstm` are stored: "float32", or what `quantize` was asked for."""
        return self.lstm.weights_dtype

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

    def _log_probabilities(
        self, before: Sequence[str], after: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        """log p of each text of ``after[r]``, given ``before[r]``."""
        encode = self._alphabet.encode
        rows = [[encode(text) for text in texts] for texts in after]
        return log_probabilities(self.lstm, self.parameters, [encode(t) for t in before], rows)

    def perplexity(self, text: str, *, rows: int = 1) -> float:
        """Return 2 to the power of `bits_per_character`."""
        return float(2 ** self.bits_per_character(text, rows=rows))

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

    def prefix_model(self, symbols: str, before: str, *, blank: int = 0) -> PrefixModel:
        """Return what `heads.ctc_decode` takes as its `model`.

        Parameters
        ----------
        symbols : str
            The characters that the K symbols stand for, all known to the model; what stands in the
            place of the blank is not read.
        before : str
            What every row follows, such as a space or the end of a line: at least one character.
        blank : int, default 0

        Returns
        -------
        callable
            Takes a prefix, a tuple of symbols, and returns (K,) log-probabilities of what comes
            next, float64; those of characters that are no symbols are left out.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, a character is unknown, or `before` is empty.

        Examples
        --------
        Of two symbols that are equally probable, the model knows which one follows:

        >>> import numpy as np
        >>> from fastlstm.heads import ctc_decode
        >>> text = "the cat sat on the mat. " * 200
        >>> model = LanguageModel(text, hidden_size=32, seed=1)
        >>> history = model.fit(text, steps=60, batch_size=8, lr=0.03)
        >>> symbols = "-cast"
        >>> p = np.full((5, 5), 0.01)
        >>> p[0, 1] = p[2, 2] = p[4, 4] = 1  # c, a, t, with blanks between
        >>> p[1, 0] = p[3, 0] = 1
        >>> p[0, 3] = 1.1  # or an s rather than the c?
        >>> for known in (None, model.prefix_model(symbols, "the ")):
        ...     print("".join(symbols[s] for s in ctc_decode(np.log(p), beam=8, model=known)))
        sat
        cat
        """
        if not check_text("symbols", symbols):
            raise ValueError("symbols: expected at least one character, got an empty text")
        blank = _validation.integer(blank, "blank", 0, len(symbols) - 1)
        encode = self._alphabet.encode
        known = symbols[:blank] + self.alphabet[0] + symbols[blank + 1 :]
        following = encode(before, "before")
        if not len(following):
            raise ValueError("before: expected at least one character, got an empty text")
        return PrefixModel(self.lstm, self.parameters, encode(known, "symbols"), blank, following)

    def quantize(self, weights_dtype: str) -> LanguageModel:
        """Return a model for inference whose recurrent layer has weights of fewer bits.

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
        cell = _file.cell_of(self._config)
        layer = {f"{cell}.{name}": array for name, array in self.lstm._tensors().items()}
        config = {"alphabet": self.alphabet, **self._config}
        if self.weights_dtype != "float32":
            config["weights_dtype"] = self.weights_dtype
        _file.write(path, {**layer, **self.parameters.snapshot()}, config)

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
        start = f"{_file.cell_of(config)}."
        layer = {n.removeprefix(start): a for n, a in tensors.items() if n.startswith(start)}
        model.lstm = model.lstm._with_tensors(layer, stored)
        for name in model.parameters:
            model.parameters[name] = tensors[name]
        return model if weights_dtype in (None, stored) else model.quantize(weights_dtype)

    def __repr__(self) -> str:
        options = {
            name: value for name, value in self._config.items() if value or name != "dropout"
        }
        if self.weights_dtype != "float32":
            options["weights_dtype"] = self.weights_dtype
        config = ", ".join(f"{name}={value!r}" for name, value in options.items())
        weights = self.lstm.parameters.size + self.parameters.size
        return f"LanguageModel({len(self._alphabet)} characters, {weights} weights, {config})"


def _generator(seed: int | None) -> np.random.Generator:
    return np.random.default_rng(None if seed is None else _validation.integer(seed, "seed", 0))
