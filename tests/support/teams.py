"""Layers of all kinds, and work that teams of threads share."""

from __future__ import annotations

from typing import Any

LAYERS: dict[str, dict[str, Any]] = {
    "plain": {"input_size": 31, "hidden_size": 33},
    "deep": {"input_size": 70, "hidden_size": 17, "num_layers": 3, "bias": False},
    "both-ways": {"input_size": 9, "hidden_size": 66, "num_layers": 2, "bidirectional": True},
    "projected": {
        "input_size": 9,
        "hidden_size": 66,
        "proj_size": 35,
        "num_layers": 2,
        "bidirectional": True,
        "peephole": True,
        "coupled": True,
    },
    "normed": {
        "input_size": 9,
        "hidden_size": 50,
        "layer_norm": True,
        "cell_clip": 0.4,
        "preact_clip": 1.0,
        "activations": ("hard_sigmoid", "softsign", "elu"),
    },
}

# Work for four threads, shared by rows or, where rows are few, by hidden units; (T, B) after it.
TEAMS: dict[str, tuple[dict[str, Any], int, int]] = {
    "rows": ({"input_size": 64, "hidden_size": 64}, 20, 16),
    "uneven-rows": ({**LAYERS["both-ways"], "dropout": 0.5}, 12, 19),
    "units": ({"input_size": 64, "hidden_size": 256}, 12, 1),
    "uneven-units": ({**LAYERS["deep"], "hidden_size": 261, "dropout": 0.2}, 8, 3),
    "projected-rows": ({**LAYERS["projected"], "zoneout": (0.2, 0.1)}, 20, 19),
    "projected-units": (
        {**LAYERS["projected"], "hidden_size": 261, "proj_size": 131, "recurrent_dropout": 0.3},
        8,
        3,
    ),
    "normed-rows": ({**LAYERS["normed"], "hidden_size": 100, "zoneout": (0.2, 0.1)}, 12, 19),
    "normed-row": ({**LAYERS["normed"], "hidden_size": 300}, 12, 1),
}
