"""What `fastlstm.look` computes, and the page as text."""

from __future__ import annotations

import base64
import json
import re
import threading
import zlib
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.models import LanguageModel
from fastlstm.viewer import Look, _look
from fastlstm.viewer._cells import parts_of
from fastlstm.viewer._influence import Influence

TEXT = "the cat sat on the mat. "


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = LanguageModel(TEXT, embedding_size=6, hidden_size=10, num_layers=2, seed=1)
    model.fit(TEXT * 60, steps=30, lr=0.02)
    return model


class Page:
    """The data of a page, as its scripts read it."""

    def __init__(self, look: Look) -> None:
        self.html = look.html
        self.about = json.loads(self.script("about"))
        self.data = zlib.decompress(base64.b64decode(self.script("data")))

    def script(self, name: str) -> str:
        found = re.search(rf'<script [^>]*id="{name}">(.*?)</script>', self.html, re.DOTALL)
        assert found
        return found[1]

    def array(self, table: dict[str, Any]) -> np.ndarray:
        dtype = np.dtype(
            {"Int8": "i1", "Uint8": "u1", "Int16": "<i2", "Uint16": "<u2"}[table["type"]]
        )
        rows, columns = table["shape"]
        array = np.frombuffer(self.data, dtype, rows * columns, table["at"])
        return array.reshape(rows, columns) * np.reshape(table["scale"], (-1, 1))


def test_values_are_those_of_trace(model: LanguageModel) -> None:
    page = Page(fastlstm.look(model, TEXT))
    codes = model._alphabet.encode(TEXT)
    traces = model.lstm.trace(codes, embedding=model.parameters["embedding.weight"])
    assert [layer["label"] for layer in page.about["layers"]] == ["layer 1", "layer 2"]
    for layer, trace in zip(page.about["layers"], traces, strict=True):
        assert set(layer["values"]) == set(trace._fields) - {"hidden"}  # that is o tanh(c)
        for name, table in layer["values"].items():
            np.testing.assert_allclose(page.array(table).T, getattr(trace, name), atol=0.0041)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_series(rng: np.random.Generator, cell: str, options: dict[str, Any]) -> None:
    layer = getattr(fastlstm, cell)(3, 5, seed=0, **options)
    x = rng.standard_normal((20, 3), dtype=np.float32)
    page = Page(fastlstm.look(layer, x))
    np.testing.assert_allclose(page.array(page.about["input"]["values"]).T, x, atol=1e-3)
    for about, trace in zip(page.about["layers"], layer.trace(x), strict=True):
        assert about["cell"] == cell
        assert about["adds_up"]
        for name, table in about["values"].items():
            np.testing.assert_allclose(page.array(table).T, getattr(trace, name), atol=0.0041)
        assert about["weights"] is not None


def test_statistics(model: LanguageModel) -> None:
    look = Page(fastlstm.look(model, TEXT))
    codes = model._alphabet.encode(TEXT)
    trace = model.lstm.trace(codes, embedding=model.parameters["embedding.weight"])[1]
    found = look.about["layers"][1]["statistics"]
    assert found["least"] == trace.cell.min(axis=0).tolist()
    assert found["most"] == trace.cell.max(axis=0).tolist()
    mean = trace.forget.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found["half_life"], np.log(0.5) / np.log(mean), rtol=1e-12)
    shut, opened = found["saturation"]["output"]
    assert shut == (trace.output < 0.1).mean(axis=0).tolist()
    assert opened == (trace.output > 0.9).mean(axis=0).tolist()
    change = np.abs(np.diff(trace.cell, axis=0, prepend=0))[:, 3]
    means = {c: change[[t for t, other in enumerate(TEXT) if other == c]].mean() for c in set(TEXT)}
    assert found["changed_by"][3] == "".join(sorted(means, key=means.__getitem__)[::-1][:5])


def test_next_characters(model: LanguageModel) -> None:
    about = Page(fastlstm.look(model, TEXT)).about["next"]
    assert about["mean"] == pytest.approx(model.bits_per_character(TEXT), rel=1e-6)
    assert np.mean(about["bits"]) == pytest.approx(about["mean"], abs=1e-3)
    page = Page(fastlstm.look(model, TEXT))
    likeliest = page.array(about["likeliest"]).astype(int)
    assert (np.diff(page.array(about["chances"]), axis=1) <= 0).all()
    # The likeliest character is what greedy writing takes.
    assert about["alphabet"][likeliest[-1, 0]] == model.generate(TEXT, 1, temperature=0)
    # bits are -log2 of the chance of the character that came
    place = next(
        t for t in range(len(TEXT) - 1) if about["alphabet"][likeliest[t, 0]] == TEXT[t + 1]
    )
    assert page.array(about["chances"])[place, 0] == pytest.approx(
        2 ** -about["bits"][place], abs=1e-3
    )


def gradient_norms(model: LanguageModel, text: str, place: int) -> np.ndarray:
    """|d log p(next) / d embedding| by finite differences, for each earlier character."""
    layer = model.lstm
    codes = model._alphabet.encode(text).astype(int)
    x = model.parameters["embedding.weight"][codes].astype(np.float64)
    target = codes[place + 1]
    weight = model.parameters["linear.weight"].astype(np.float64)
    twin = fastlstm.LSTM(
        layer.input_size, layer.hidden_size, layer.num_layers, dtype="float64", seed=0
    )
    for name in twin.parameters:
        twin.parameters[name] = layer.parameters[name].astype(np.float64)

    def log_p(x: np.ndarray) -> float:
        logits = twin(x)[0][place] @ weight.T + model.parameters["linear.bias"]
        return float(logits[target] - np.log(np.exp(logits).sum()))

    slopes = np.zeros_like(x[: place + 1])
    for index in np.ndindex(slopes.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        slopes[index] = (log_p(x + step) - log_p(x - step)) / 2e-5
    return np.linalg.norm(slopes, axis=1)


@pytest.mark.parametrize("why", [(), (9, 14)])
def test_what_mattered(model: LanguageModel, why: tuple[int, ...]) -> None:
    page = Page(fastlstm.look(model, TEXT, why))
    about = page.about["why"]
    assert about["places"] == (list(why) or list(range(len(TEXT))))
    assert about["reach"] == (None if why else 64)
    row = about["places"].index(14)
    norms = gradient_norms(model, TEXT, 14)
    order = np.argsort(-norms)[:8]
    assert page.array(about["steps"])[row].astype(int).tolist() == order.tolist()
    shares = page.array(about["shares"])[row]
    np.testing.assert_allclose(shares, norms[order] / norms.sum(), atol=0.004)


def test_reach_of_gradients_is_cut_exactly(rng: np.random.Generator) -> None:
    """The last steps have the gradients they have among all, from the same state on."""
    layer = fastlstm.LSTM(3, 5, num_layers=2, dtype="float64", seed=0)
    x = rng.standard_normal((20, 3))
    parts = parts_of(layer, layer.trace(x), x)

    def loss(y: np.ndarray, _: np.ndarray) -> np.ndarray:
        return y**2  # so that the gradient depends on the state

    places = np.arange(20)
    few, few_shares = Influence(layer, parts, x, 4, loss).of(places)
    many, many_shares = Influence(layer, parts, x, 8, loss).of(places)
    assert (few_shares > 0).sum(axis=1).tolist() == [1, 2, 3, *[4] * 17]
    for row in places:  # the last four of the last eight
        near = {t: share for t, share in zip(many[row], many_shares[row], strict=True) if share}
        kept = {t: near[t] for t in range(max(0, row - 3), row + 1)}
        found = [float(share) for share in few_shares[row] if share]
        expected = [kept[t] / sum(kept.values()) for t in few[row][: len(found)]]
        assert found == pytest.approx(expected)


def test_what_mattered_in_both_directions(rng: np.random.Generator) -> None:
    layer = fastlstm.LSTM(2, 4, bidirectional=True, batch_first=True, dtype="float64", seed=0)
    x = rng.standard_normal((12, 2))
    page = Page(fastlstm.look(layer, x, (5,)))
    slopes = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        slopes[index] = (layer(x + step)[0][5].sum() - layer(x - step)[0][5].sum()) / 2e-6
    norms = np.linalg.norm(slopes, axis=1)
    order = np.argsort(-norms)[:8]
    assert page.array(page.about["why"]["steps"])[0].astype(int).tolist() == order.tolist()
    assert order.max() > 5


def test_windows_of_both_directions(rng: np.random.Generator) -> None:
    """With one layer, they have the gradients of the whole: states at both ends are given."""
    layer = fastlstm.GRU(2, 4, bidirectional=True, dtype="float64", seed=0)
    x = rng.standard_normal((30, 2))
    parts = parts_of(layer, layer.trace(x), x)
    places = np.array([0, 3, 15, 29])
    few, few_shares = Influence(layer, parts, x, 3, lambda y, _: y**2).of(places)
    slopes = np.zeros((4, *x.shape))
    outputs = layer(x)[0][places]
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        change = (layer(x + step)[0] - layer(x - step)[0])[places]
        slopes[:, *index] = (outputs**2 * change).sum(axis=1) / 2e-6
    norms = np.linalg.norm(slopes, axis=2)
    for row, place in enumerate(places):
        window = norms[row, max(0, place - 2) : place + 3]
        assert (few_shares[row] > 0).sum() == len(window)
        for step, share in zip(few[row], few_shares[row][: len(window)], strict=False):
            assert share == pytest.approx(norms[row, step] / window.sum(), rel=1e-5)


def test_dropout_does_not_matter(model: LanguageModel) -> None:
    twice = LanguageModel(TEXT, hidden_size=8, num_layers=2, dropout=0.5, seed=0)
    assert fastlstm.look(twice, TEXT).html == fastlstm.look(twice, TEXT).html
    assert twice.lstm.dropout == 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"peephole": True},
        {"layer_norm": True},
        {"proj_size": 3},
        {"coupled": True},
        {"zoneout": (0.5, 0.5)},
        {"cell_clip": 0.1},
        {"activations": ("sigmoid", ("relu",), "softsign")},
    ],
)
def test_options(rng: np.random.Generator, options: dict[str, Any]) -> None:
    """What the page would compute for the plain cell is left out where the cell is another."""
    layer = fastlstm.LSTM(3, 5, seed=0, **options)
    x = 3 * rng.standard_normal((30, 3), dtype=np.float32)
    page = Page(fastlstm.look(layer, x))
    [about] = page.about["layers"]
    [trace] = layer.trace(x)
    for name, table in about["values"].items():
        np.testing.assert_allclose(page.array(table).T, getattr(trace, name), atol=0.0041)
    name = next(iter(options))
    assert (about["weights"] is None) == (name in ("peephole", "layer_norm", "coupled"))
    assert about["shows"] == (name not in ("proj_size", "zoneout"))
    assert ("hidden" in about["values"]) == (name in ("proj_size", "zoneout", "activations"))
    assert about["adds_up"] == (name not in ("zoneout", "cell_clip"))
    assert (page.about["why"] is None) == ("zoneout" in options)
    if name == "activations":
        assert about["functions"] == ["sigmoid", "relu", "softsign"]
        hidden = trace.output * trace.cell / (1 + np.abs(trace.cell))
        np.testing.assert_allclose(trace.hidden, hidden, atol=1e-5)


def test_relu_of_an_rnn(rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 2), dtype=np.float32)
    layer = fastlstm.RNN(2, 4, nonlinearity="relu", seed=0)
    [about] = Page(fastlstm.look(layer, x)).about["layers"]
    assert about["weights"] is not None
    assert about["functions"][1] == "relu"


def test_reset_before_the_product(rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 2), dtype=np.float32)
    [about] = Page(fastlstm.look(fastlstm.GRU(2, 4, reset_after=False, seed=0), x)).about["layers"]
    assert about["weights"] is not None
    assert about["reset_after"] is False


def test_zeros_explain_nothing_that_is_not_there() -> None:
    """The gates of a coupled LSTM of zeros are those of three zeros, and there are four."""
    layer = fastlstm.LSTM(2, 3, coupled=True, seed=0)
    for name in layer.parameters:
        layer.parameters[name] = np.zeros_like(layer.parameters[name])
    [about] = Page(fastlstm.look(layer, np.ones((4, 2), np.float32))).about["layers"]
    assert about["weights"] is None


def test_zoneout_has_no_arcs() -> None:
    layer = fastlstm.LSTM(2, 3, zoneout=(0.1, 0.1), seed=0)
    with pytest.raises(
        ValueError, match=r"why: expected a layer that has gradients, got .* zoneout"
    ):
        fastlstm.look(layer, np.ones((4, 2), np.float32), (1,))


def test_the_model_is_left_as_it_was(model: LanguageModel) -> None:
    """It may be trained meanwhile: the page is of a copy, and of one state of the weights."""
    versions = [parameters.version for parameters in model.trainable]
    fastlstm.look(model, TEXT)
    assert [parameters.version for parameters in model.trainable] == versions


def test_beside_training(rng: np.random.Generator) -> None:
    layer = fastlstm.LSTM(3, 32, seed=0)
    x, stop = rng.standard_normal((200, 3), dtype=np.float32), threading.Event()

    def train() -> None:
        adam = fastlstm.optim.Adam(layer.parameters, lr=0.3)
        while not stop.is_set():
            y, _, tape = layer.forward(x[:, None])
            adam.step(layer.backward(tape, y)[2])

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(10):  # weights and gates are of one moment, so the first explain the second
            [about] = Page(fastlstm.look(layer, x)).about["layers"]
            assert about["weights"] is not None
    finally:
        stop.set()
        thread.join()


def test_marks_of_the_template_in_a_text() -> None:
    text = "{{data}} {{script}} {{style}} {{title}}"
    model = LanguageModel(text, hidden_size=3, seed=0)
    assert Page(fastlstm.look(model, text)).about["text"] == text


def test_places_and_units_of_any_kind(model: LanguageModel) -> None:
    for why in ([3, 9], (n for n in (3, 9)), np.array([9, 3]), {3, 9}, iter([np.int64(3), 9])):
        about = Page(fastlstm.look(model, TEXT, why, unit=np.int64(2))).about
        assert about["why"]["places"] == [3, 9]
        assert about["unit"] == 2
    assert "1 character," in repr(fastlstm.look(model, "t"))


def test_weights_of_fewer_bits(model: LanguageModel) -> None:
    page = Page(fastlstm.look(model.quantize("int8"), TEXT))
    assert page.about["why"] is None  # there are no gradients
    assert all(layer["weights"] for layer in page.about["layers"])
    with pytest.raises(ValueError, match=r"why: .* got one with weights of int8"):
        fastlstm.look(model.quantize("int8"), TEXT, (1,))


def test_text_stays_text(model: LanguageModel) -> None:
    text = "</script><img onerror=alert(1)>\"&'\ud800\U0001f600"
    other = LanguageModel(text, hidden_size=4, seed=0)
    page = fastlstm.look(other, text)
    assert Page(page).about["text"] == text
    assert "<img" not in page.html
    assert "<img" not in page._repr_html_().replace("&lt;img", "")
    assert page.html.count("</script>") == 3


def test_a_page_is_the_same_each_time(model: LanguageModel) -> None:
    assert fastlstm.look(model, TEXT).html == fastlstm.look(model, TEXT).html


def test_no_network(model: LanguageModel) -> None:
    html = fastlstm.look(model, TEXT).html
    assert "default-src 'none'" in html
    addresses = set(re.findall(r"https?://[^\"' )]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_notebook(model: LanguageModel) -> None:
    page = fastlstm.look(model, TEXT)
    html = page._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in html
    static = html[html.index("<details>") :]
    assert "<script" not in static
    assert static.count("<span title=") == len(TEXT)
    assert repr(page) == "Look(LSTM, 2 layers of 10 units, 24 characters, 0.1 MB)"


def test_save(model: LanguageModel, tmp_path: Any) -> None:
    page = fastlstm.look(model, TEXT)
    page.save(tmp_path / "look.html")
    assert (tmp_path / "look.html").read_text(encoding="utf-8") == page.html
    with pytest.raises(OSError, match="no directory"):
        page.save(tmp_path / "missing" / "look.html")


def test_size() -> None:
    """What 2,000 characters and 256 units take, when gates are as far from constant as can be."""
    text = "".join(chr(97 + i % 26) for i in range(2000))
    model = LanguageModel(text, hidden_size=256, seed=0)
    rng = np.random.default_rng(0)
    model.lstm.parameters["weight_ih_l0"] = rng.standard_normal((1024, 64))
    assert len(fastlstm.look(model, text, (1,)).html) < 5_000_000


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = "".join(chr(97 + code) for code in np.random.default_rng(0).integers(0, 26, 2_000))
    model = LanguageModel(letters, hidden_size=64, seed=0)
    with pytest.raises(ValueError, match=r"of 10 MB, about 24,[0-9]+ steps; got 2,000,000, which"):
        fastlstm.look(model, letters * 1_000)  # certain to be too large: at once
    monkeypatch.setattr(_look, "MOST_BYTES", 500_000)
    with pytest.raises(
        ValueError, match=r"text: expected what fits .* about [\d,]+ steps; got"
    ) as told:
        fastlstm.look(model, letters)
    fits = int(re.findall(r"about ([\d,]+)", str(told.value))[0].replace(",", ""))
    assert 400 < fits < 2_000
    fastlstm.look(model, letters[:fits])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((TEXT, (24,)), ValueError, "why: expected at most 23, got 24"),
        ((TEXT, (1.5,)), TypeError, "why: expected an integer, got float"),
        ((TEXT, 3), TypeError, "why: expected a sequence of places, got int"),
        ((TEXT, None), TypeError, "why: expected a sequence of places, got NoneType"),
        (("",), ValueError, "text: expected at least one step, got none"),
        (("the cat!",), ValueError, "is not one of the"),
        ((np.ones((3, 6)),), TypeError, "text: expected str, got ndarray"),
    ],
)
def test_bad_arguments(model: LanguageModel, arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fastlstm.look(model, *arguments)


def test_bad_series() -> None:
    layer = fastlstm.LSTM(2, 3, seed=0)
    good = np.ones((4, 2), np.float32)
    with pytest.raises(
        TypeError, match="model: expected a LanguageModel, LSTM, GRU or RNN, got str"
    ):
        fastlstm.look("model", TEXT)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"text: expected an array \(T, I\), as the model is a layer"
    ):
        fastlstm.look(layer, TEXT)
    with pytest.raises(ValueError, match=r"x: expected \(T, 2\), got \(4, 1, 2\)"):
        fastlstm.look(layer, good[:, None])
    with pytest.raises(ValueError, match="unit: expected at most 2, got 3"):
        fastlstm.look(layer, good, unit=3)
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(
        ValueError, match="x: expected finite states, got NaN or infinity at step 2"
    ):
        fastlstm.look(layer, bad)
