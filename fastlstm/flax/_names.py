"""What Flax calls the dense layers of its cells."""

from __future__ import annotations

from typing import Any, NamedTuple

Tree = dict[str, Any]


class Form(NamedTuple):
    """The dense layers of a cell: one for each gate, or one for all."""

    cell: str
    inputs: tuple[str, ...]
    hidden: tuple[str, ...]
    biased: tuple[str, ...]  # which of them have a bias


FUSED = (("dense_i",), ("dense_h",))
# Gates in our order: i, f, g, o and r, z, n.
LINEN = {
    "lstm": Form("lstm", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"),
                  ("hi", "hf", "hg", "ho")),
    "gru": Form("gru", ("ir", "iz", "in"), ("hr", "hz", "hn"), ("ir", "iz", "in", "hn")),
    "rnn": Form("rnn", ("i",), ("h",), ("i",)),
}  # fmt: skip
NNX = {
    "lstm": Form("lstm", *FUSED, ("dense_h",)),
    "gru": Form("gru", *FUSED, ("dense_i",)),
    "rnn": Form("rnn", *FUSED, ("dense_i",)),
}
NNX_LSTM_CELL = LINEN["lstm"]._replace(inputs=("ii", "if_", "ig", "io"))
SEPARATE = [*LINEN.values(), NNX_LSTM_CELL]
NAMES = {name for form in (*SEPARATE, NNX["lstm"]) for name in form.inputs + form.hidden}
DIRECTIONS = ("forward_rnn", "backward_rnn")
