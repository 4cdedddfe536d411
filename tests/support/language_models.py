"""Small language models, and the same ones by the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import reference
from fastlstm.models import LanguageModel

TEXT = "the cat sat on the mat, the dog lay on the log. " * 60
SMALL: dict[str, Any] = {"embedding_size": 5, "hidden_size": 8}


def small_model(seed: int = 1, **options: Any) -> LanguageModel:
    return LanguageModel(TEXT, **{**SMALL, "seed": seed, **options})


def weights_of(model: LanguageModel) -> np.ndarray:
    return np.concatenate([parameters.flat for parameters in model.trainable])


def reference_logits(model: LanguageModel, codes: np.ndarray, shift: Any = 0.0) -> np.ndarray:
    """Logits [T, B, V] of a one-layer model in float64, its weights moved by `shift`."""
    flat = weights_of(model).astype(np.float64) + shift
    arrays, start = {}, 0
    for parameters in model.trainable:
        for name, array in parameters.items():
            arrays[name] = flat[start : start + array.size].reshape(array.shape)
            start += array.size
    lstm = reference.LSTM(model.lstm.input_size, model.lstm.hidden_size)
    lstm.load_state_dict({name: arrays[name] for name in lstm.parameters})
    y, _ = lstm(arrays["embedding.weight"][codes])
    return y @ arrays["linear.weight"].T + arrays["linear.bias"]


def mean_nll(logits: np.ndarray, targets: np.ndarray) -> float:
    top = logits.max(axis=-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return float(-np.take_along_axis(log_p, targets[..., None], axis=-1).mean())
