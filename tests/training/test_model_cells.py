"""Language models whose recurrent layer is no LSTM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastlstm import GRU, LSTM, RNN, SLSTM
from fastlstm._io import tensor_file
from fastlstm.models import LanguageModel

TEXT = "the cat sat on the mat. " * 100
CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "slstm": SLSTM}


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns_and_is_saved(cell: str, tmp_path: Path) -> None:
    model = LanguageModel(TEXT, hidden_size=32, cell=cell, seed=1)
    assert type(model.lstm) is CELLS[cell]
    history = model.fit(TEXT, steps=80, batch_size=8, lr=0.02)
    assert history.records[-1].held_out_bits < 0.5
    path = tmp_path / "m"
    for saved in (model, model.quantize("int8")):
        saved.save(path)
        loaded = LanguageModel.load(path)
        assert repr(loaded) == repr(saved)
        assert loaded.bits_per_character(TEXT) == saved.bits_per_character(TEXT)
        assert loaded.generate("the", 20, seed=2) == saved.generate("the", 20, seed=2)


@pytest.mark.parametrize("cell", ["gru", "rnn", "slstm"])
def test_a_run_of_other_cells_goes_on(cell: str, tmp_path: Path) -> None:
    """The same bits as of a run that never stopped, in shards too."""
    path = tmp_path / "run"

    def fitted(steps: int, shards: int | None, **options: object) -> LanguageModel:
        model = LanguageModel(TEXT, hidden_size=8, cell=cell, seed=1)

        def stop(record: object) -> None:
            if getattr(record, "step", 0) == 5 and steps == 5:
                raise InterruptedError

        try:
            model.fit(
                TEXT, steps=10, batch_size=4, chunk=8, shards=shards, progress=stop, **options
            )
        except InterruptedError:
            assert steps == 5
        return model

    for shards in (None, 2):
        whole = fitted(10, shards)
        fitted(5, shards, checkpoint=path, checkpoint_every=4)
        again = fitted(10, shards, checkpoint=path, resume=True)
        for ours, theirs in zip(whole.trainable, again.trainable, strict=True):
            assert np.array_equal(ours.flat, theirs.flat)


def test_the_file_of_an_lstm_says_nothing_of_its_cell(tmp_path: Path) -> None:
    """As before there were others: old files load, new ones are the same."""
    path = tmp_path / "m"
    model = LanguageModel("ab", embedding_size=2, hidden_size=3, seed=1)
    model.save(path)
    tensors, config = tensor_file.read(path, "LanguageModel")
    assert set(config) == {
        "alphabet", "dropout", "embedding_size", "hidden_size", "num_layers",
    }  # fmt: skip
    assert {name.partition(".")[0] for name in tensors} == {"lstm", "embedding", "linear"}
    assert "cell" not in repr(model)


def test_cells_that_are_none() -> None:
    with pytest.raises(
        ValueError, match=r"cell: expected 'lstm', 'gru', 'rnn' or 'slstm', got 'LSTM'"
    ):
        LanguageModel("ab", cell="LSTM")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("tcn", "damaged: cell: expected one of lstm, gru, rnn, slstm, got 'tcn'"),
        ([], r"damaged: cell: expected one of lstm, gru, rnn, slstm, got \[\]"),
        ("gru", "weights and configuration do not agree"),
        ("slstm", "damaged: hidden_size: expected a multiple of 4, got 3"),
    ],
)
def test_a_file_of_another_cell_is_an_error(cell: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    LanguageModel("ab", embedding_size=2, hidden_size=3, cell="rnn").save(path)
    tensors, config = tensor_file.read(path, "LanguageModel")
    tensor_file.write(path, "LanguageModel", tensors, config | {"cell": cell})
    with pytest.raises(ValueError, match=message):
        LanguageModel.load(path)
