"""What Flax calls the dense layers of its cells."""

from __future__ import annotations

from typing import Any, NamedTuple

Tree = dict[str, Any]


class _Form(NamedTuple):
    """The dense layers of a cell: one for each gate, or one for all."""

    cell: str
    inputs: tuple[str, ...]
    hidden: tuple[str, ...]
    biased: tuple[str, ...]  # which of them have a bias


_FUSED = (("dense_i",), ("dense_h",))


# Gates in our order: i, f, g, o and r, z, n.
_LINEN = {
    "lstm": _Form("lstm", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"),
                  ("hi", "hf", "hg", "ho")),
    "gru": _Form("gru", ("ir", "iz", "in"), ("hr", "hz", "hn"), ("ir", "iz", "in", "hn")),
    "rnn": _Form("rnn", ("i",), ("h",), ("i",)),
}  # fmt: skip


_NNX = {
    "lstm": _Form("lstm", *_FUSED, ("dense_h",)),
    "gru": _Form("gru", *_FUSED, ("dense_i",)),
    "rnn": _Form("rnn", *_FUSED, ("dense_i",)),
}


_NNX_LSTM_CELL = _LINEN["lstm"]._replace(inputs=("ii", "if_", "ig", "io"))


_SEPARATE = [*_LINEN.values(), _NNX_LSTM_CELL]


_NAMES = {name for form in (*_SEPARATE, _NNX["lstm"]) for name in form.inputs + form.hidden}


_DIRECTIONS = ("forward_rnn", "backward_rnn")
