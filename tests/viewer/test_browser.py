"""The page in a real browser: what it shows, by pointer and by keys, without network."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import fastlstm
import fastlstm.plot
from fastlstm.models import LanguageModel

pytestmark = pytest.mark.peer

SENTENCE = "abc(cabbaca)ab[accbab]bca(bc)[abcaabba]c"


MINUS, SIGMA = "\N{MINUS SIGN}", "\N{GREEK SMALL LETTER SIGMA}"


def number(text: str) -> float:
    return float(text.replace(MINUS, "-"))


@pytest.fixture(scope="module")
def brackets() -> LanguageModel:
    """A model of brackets: units 3 and 11 of its 12 are known."""
    rng = np.random.default_rng(0)

    def phrase() -> str:
        letters = "".join(rng.choice(list("abc"), rng.integers(3, 10)))
        return str(rng.choice(["{}", "({})", "[{}]"])).format(letters)

    text = "".join(phrase() for _ in range(20_000))
    model = LanguageModel(text, embedding_size=8, hidden_size=12, seed=0)
    bias = np.array(model.lstm.parameters["bias_ih_l0"])
    bias[12:24] = 2
    model.lstm.parameters["bias_ih_l0"] = bias
    model.fit(text, steps=1000, lr=0.01)
    return model


def trace_of(model: LanguageModel, text: str) -> Any:
    tokens = model._alphabet.encode(text)
    return model.lstm.trace(tokens, embedding=model.parameters["embedding.weight"])[0]


def test_numbers_are_those_of_trace(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    trace = trace_of(brackets, SENTENCE)
    for unit, place in ((3, 14), (11, 20), (0, 0)):
        page.open(f"#unit={unit}&pin={place}")
        assert (
            page.text("#cell-title")
            == f"LSTM cell, unit {unit}, at character {place}, “{SENTENCE[place]}”"
        )
        shown = page.texts("#drawing text.value")
        before = trace.cell[place - 1, unit] if place else 0.0
        expected = {
            "before": before,
            "kept": trace.forget[place, unit] * before,
            "cell": trace.cell[place, unit],
            "wrote": trace.input[place, unit] * trace.candidate[place, unit],
            **{
                name: getattr(trace, name)[place, unit]
                for name in ("forget", "input", "candidate", "output")
            },
            "hidden": trace.hidden[place, unit],
        }
        for text, (name, value) in zip(shown, expected.items(), strict=True):
            assert number(text.split()[-1]) == pytest.approx(value, abs=0.01), name


def test_shares(brackets: LanguageModel, browser: Any) -> None:
    """What x and h contribute to each gate, from the weights of the layer."""
    unit, place = 3, 14
    page = browser(fastlstm.look(brackets, SENTENCE), f"#unit={unit}&pin={place}")
    trace, parameters = trace_of(brackets, SENTENCE), brackets.lstm.parameters
    x = brackets.parameters["embedding.weight"][brackets._alphabet.encode(SENTENCE)[place]]
    for gate, name in enumerate(("forget", "input", "candidate", "output")):
        row = {"input": 0, "forget": 1, "candidate": 2, "output": 3}[name] * 12 + unit
        of_x = abs(parameters["weight_ih_l0"][row] @ x)
        of_h = abs(parameters["weight_hh_l0"][row] @ trace.hidden[place - 1])
        shown = page.texts("#drawing .share")[2 * gate : 2 * gate + 2]
        assert number(shown[0].rstrip("%")) == pytest.approx(100 * of_x / (of_x + of_h), abs=1.1)
        assert number(shown[1].rstrip("%")) == pytest.approx(100 * of_h / (of_x + of_h), abs=1.1)


@pytest.mark.parametrize("after", [True, False])
def test_shares_of_a_gru(after: bool, browser: Any, rng: np.random.Generator) -> None:
    layer = fastlstm.GRU(3, 5, reset_after=after, seed=0)
    x = rng.standard_normal((12, 3), dtype=np.float32)
    page = browser(fastlstm.look(layer, x), "#unit=2&pin=7")
    parts = fastlstm.plot.contributions(layer, x)
    for gate, name in enumerate(("update", "reset", "candidate")):
        row = {"reset": 0, "update": 1, "candidate": 2}[name]
        of_x, of_h = (abs(part[7, row, 2]) for part in (parts.input, parts.hidden))
        shown = page.texts("#drawing .share")[2 * gate]
        assert number(shown.rstrip("%")) == pytest.approx(100 * of_x / (of_x + of_h), abs=1.1)


def test_what_arcs_are_is_said(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    assert "at most 64 steps back" in page.text("#legend")
    page = browser(fastlstm.look(brackets, SENTENCE, (3,)))
    assert "of all steps" in page.text("#legend")


def test_statistics_are_exact(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    trace = trace_of(brackets, SENTENCE)
    rows = page.run(
        "return Array.from(document.querySelectorAll('tbody tr'), r => "
        "Array.from(r.cells, c => c.textContent))"
    )
    assert len(rows) == 12
    for unit, row in enumerate(rows):
        assert row[0] == str(unit)
        assert number(row[1]) == round(float(trace.cell[:, unit].min()), 2)
        assert number(row[3]) == round(float(trace.cell[:, unit].max()), 2)
        mean = trace.forget[:, unit].mean(dtype=np.float64)
        assert number(row[4]) == pytest.approx(-1 / np.log2(mean), abs=0.051)


def test_what_comes_next(brackets: LanguageModel, browser: Any) -> None:
    place = SENTENCE.index("[")
    page = browser(fastlstm.look(brackets, SENTENCE), f"#pin={place}")
    bits = brackets.bits_per_character(SENTENCE)
    assert f"{bits:.2f} bits per character" in page.text("#summary")
    likeliest = brackets.generate(SENTENCE[: place + 1], 1, temperature=0)
    assert page.texts("#likeliest b")[0] == likeliest
    assert len(page.texts("#likeliest b")) == 5
    assert page.texts("#likeliest li.came b") == [SENTENCE[place + 1]]
    page.run("document.getElementById('text').focus()")
    page.press("END")
    assert "The text ends here." in page.text("#surprise")


def test_known_units_are_found_by_selecting(brackets: LanguageModel, browser: Any) -> None:
    """Unit 3 is below 0 in square brackets alone, unit 11 counts what is in brackets."""
    start, end = SENTENCE.index("["), SENTENCE.index("]")
    page = browser(fastlstm.look(brackets, SENTENCE), f"#selection={start}-{end - 1}&pin={start}")
    groups = dict(
        zip(
            page.texts("#found h3"),
            page.run(
                "return Array.from(document.querySelectorAll('#found .group'), g => "
                "Array.from(g.querySelectorAll('button.unit'), b => b.textContent))"
            ),
            strict=True,
        )
    )
    exact = next(units for title, units in groups.items() if title.startswith("on exactly here"))
    assert f"3{MINUS}" in exact
    # Elsewhere together: the other square brackets.
    assert any("[abcaabba" in place for place in page.texts("#found .place mark"))
    inside = SENTENCE.index("(") + 4
    page.open(f"#selection={inside}-{SENTENCE.index(')') - 1}&pin={inside}")
    found = page.texts("#found button.unit")
    assert any(re.match(r"11\+", text) for text in found)


def test_keys_alone(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE), "#unit=3&pin=0")
    page.run("document.getElementById('text').focus()")
    page.press(*["ARROW_RIGHT"] * 14)
    assert "character 14, “[”" in page.text("#readout")
    assert "unit 3" in page.text("#readout")
    page.press(*["ARROW_RIGHT"] * 6, shift=True)
    assert "on exactly here, 7 characters" in page.texts("#found h3")
    page.press("PAGE_DOWN")
    assert "unit 4" in page.text("#readout")
    page.press("PAGE_UP", "PAGE_UP")
    assert "unit 2" in page.text("#readout")
    page.press("HOME")
    assert "character 0," in page.text("#readout")
    assert page.texts("#found h3") == []  # moving ends a selection
    page.press("END")
    assert f"character {len(SENTENCE) - 1}," in page.text("#readout")


def test_a_selection_goes_on_from_where_it_began(brackets: LanguageModel, browser: Any) -> None:
    look = fastlstm.look(brackets, SENTENCE)
    page = browser(look, "#unit=3&selection=8-10&pin=10")
    page.run("document.getElementById('text').focus()")
    page.press("ARROW_RIGHT", shift=True)
    assert "selection=8-11" in page.run("return location.hash")
    page.press("ARROW_LEFT", "ARROW_LEFT", "ARROW_LEFT", "ARROW_LEFT", shift=True)
    assert "selection=7-8" in page.run("return location.hash")


def test_the_focus_stays(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE), "#unit=3&selection=14-20&pin=14")
    page.run("document.querySelector('input[value=cell]').focus()")
    page.press("ARROW_LEFT", "ARROW_LEFT")
    assert page.focused() == "candidate"
    assert "candidate" in page.text("#readout")
    first = page.run("return document.querySelector('button.place').title")
    start, _ = re.findall(r"\d+", first)
    page.run("document.querySelector('button.place').focus()")
    page.press("ENTER")
    assert page.focused() == "text"
    page.press("ARROW_RIGHT", shift=True)
    assert f"selection={start}-" in page.run("return location.hash")


def test_keys_of_the_browser_stay_its_own(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    kept = page.run(
        "const key = new KeyboardEvent('keydown', {key: 'ArrowLeft', altKey: true, "
        "cancelable: true, bubbles: true});"
        "return document.getElementById('text').dispatchEvent(key)"
    )
    assert kept is True


def test_mean_stays_with_another_layer(browser: Any, rng: np.random.Generator) -> None:
    layer = fastlstm.LSTM(2, 4, num_layers=2, seed=0)
    look = fastlstm.look(layer, rng.standard_normal((9, 2), dtype=np.float32))
    page = browser(look, "#unit=mean")
    page.run("document.getElementById('layer').value = 1")
    page.run("document.getElementById('layer').dispatchEvent(new Event('change'))")
    assert "mean of all units" in page.text("#cell-title")


@pytest.mark.parametrize(
    ("options", "boxes", "words"),
    [
        (
            {"activations": ("sigmoid", "relu", "softsign")},
            [SIGMA, SIGMA, "relu", SIGMA],
            "of softsign",
        ),
        (
            {"zoneout": (0.5, 0.5)},
            [SIGMA, SIGMA, "tanh", SIGMA],
            "an option of this layer has a part",
        ),
        ({"proj_size": 2}, [SIGMA, SIGMA, "tanh", SIGMA], "to the projection"),
    ],
)
def test_cells_that_are_not_plain(
    options: Any, boxes: list[str], words: str, browser: Any, rng: np.random.Generator
) -> None:
    layer = fastlstm.LSTM(3, 4, seed=0, **options)
    page = browser(fastlstm.look(layer, rng.standard_normal((9, 3), dtype=np.float32)))
    assert page.texts("#drawing text.function")[1:] == boxes
    assert words in page.text("#cell-words")


def test_every_control_is_reached_by_tab(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE), "#selection=14-20")
    reached = set()
    for _ in range(80):
        page.press("TAB")
        reached.add(page.focused())
    wanted = {
        "unit",
        "unit-before",
        "unit-after",
        "mean",
        "arcs",
        "text",
        "chart",
        "threshold",
        "margin",
        "clear",
    }
    assert wanted <= reached
    assert {"cell", "most", "half-life, steps"} & reached  # a radio button; heads of the table


def test_unit_by_number_and_colour_by(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    trace = trace_of(brackets, SENTENCE)
    page.run("document.getElementById('unit').value = 7")
    page.run("document.getElementById('unit').dispatchEvent(new Event('input'))")
    page.run("document.querySelector('input[value=forget]').click()")
    assert "unit=7" in page.run("return location.hash")
    assert "show=forget" in page.run("return location.hash")
    levels = page.run(
        "return Array.from(document.querySelectorAll('#text span'), s => s.className)"
    )
    for level, value in zip(levels, trace.forget[:, 7], strict=True):
        shown = int(re.search(r"gate(\d+)", level)[1]) if "gate" in level else 0
        assert shown == pytest.approx(12 * value, abs=0.6)


def test_pointer(brackets: LanguageModel, browser: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page = browser(fastlstm.look(brackets, SENTENCE), "#pin=2")
    spans = page.chrome.find_elements(By.CSS_SELECTOR, "#text span")
    ActionChains(page.chrome, duration=0).move_to_element(spans[9]).perform()
    assert "character 9," in page.text("#readout")
    ActionChains(page.chrome, duration=0).move_to_element(
        page.chrome.find_element(By.TAG_NAME, "h1")
    ).perform()
    assert "character 2," in page.text("#readout")  # back to where it was
    drag = ActionChains(page.chrome, duration=0).click_and_hold(spans[14])
    drag.move_to_element(spans[17]).move_to_element(spans[20]).release().perform()
    assert "on exactly here, 7 characters" in page.texts("#found h3")
    ActionChains(page.chrome, duration=0).click(spans[5]).perform()
    assert page.texts("#found h3") == []
    assert "pin=5" in page.run("return location.hash")


def test_arcs(brackets: LanguageModel, browser: Any) -> None:
    place = SENTENCE.index("]")
    look = fastlstm.look(brackets, SENTENCE)
    page = browser(look, f"#pin={place}")
    widths = page.run(
        "return Array.from(document.querySelectorAll('#arc-lines path'), "
        "p => +p.getAttribute('stroke-width'))"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths
    page.run("document.getElementById('arcs').click()")
    assert page.texts("#arc-lines path") == []


def test_saturation(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    trace = trace_of(brackets, SENTENCE)
    titles = page.texts("#scatter figure:nth-child(2) title")
    assert page.texts("#scatter figcaption") == ["input gate", "forget gate", "output gate"]
    shut = (trace.forget < 0.1).mean(axis=0)
    assert f"unit 3: shut {shut[3] * 100:.0f}%" in next(
        t for t in titles if t.startswith("unit 3:")
    )
    page.run(
        "document.querySelector('#scatter circle').dispatchEvent("
        "new MouseEvent('click', {bubbles: true, clientX: 0, clientY: 0}))"
    )
    assert page.text("tr.chosen td") == str(
        page.run("return +document.getElementById('unit').value")
    )


def test_table_sorts(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    for times, order in ((1, -1), (2, 1)):
        page.run("document.querySelectorAll('th button')[3].click()")
        shown = [number(text) for text in page.texts("td.most")]
        assert shown == sorted(shown)[::order], times
    page.run("document.querySelector('tbody tr:last-child').click()")
    assert page.text("tr.chosen td") == page.text("tbody tr:last-child td")


def test_no_request_and_no_message(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE))
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    asked = [
        json.loads(entry["message"])["message"] for entry in page.chrome.get_log("performance")
    ]
    addresses = [
        message["params"]["request"]["url"]
        for message in asked
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert all(address.startswith("file:///") for address in addresses)
    assert len(addresses) <= 1


def test_text_stays_text(browser: Any) -> None:
    text = '</script><img src=x onerror="document.title=1"><b>&amp;\U0001f600\u0301\n\t\r{{data}}'
    model = LanguageModel(text, hidden_size=4, seed=0)
    page = browser(fastlstm.look(model, text))
    assert page.run("return document.querySelectorAll('img').length") == 0
    assert "fastlstm look" in page.run("return document.title")
    spans = page.texts("#text span")
    assert len(spans) == len(text)
    assert spans[: len("</script>")] == list("</script>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(brackets: LanguageModel, browser: Any, scheme: str) -> None:
    """Each text has a contrast of 4.5 to what is behind it."""
    page = browser(
        fastlstm.look(brackets, SENTENCE), "#unit=3&pin=20&selection=14-20", scheme=scheme
    )
    poor = page.run(CONTRAST)
    assert poor == []
    page.run("document.querySelector('input[value=forget]').click()")
    assert page.run(CONTRAST) == []


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgb(colour) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance(c) {
  const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  for (let e = element; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c;
  }
  return [255, 255, 255];
}
const poor = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || e.closest('script, noscript, style, title') || !e.getClientRects().length) continue;
  const style = getComputedStyle(e);
  const colour = rgb(e.namespaceURI.includes('svg') ? style.fill : style.color);
  const [a, b] = [luminance(colour), luminance(behind(e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor.push([e.tagName, e.getAttribute('class'), e.textContent, ratio]);
}
return poor;
"""


@pytest.mark.parametrize("width", [1300, 700])
def test_nothing_is_cut_off(brackets: LanguageModel, browser: Any, width: int) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE * 4), "#selection=14-20", width=width)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    outside = page.run(
        "const box = document.getElementById('drawing').getBoundingClientRect();"
        "const drawn = document.querySelectorAll('#drawing g > *');"
        "return Array.from(drawn).filter(t => { const r = t.getBoundingClientRect();"
        "return (r.width || r.height) && (r.left < box.left - 1 || r.right > box.right + 1 || "
        "r.top < box.top - 1 || r.bottom > box.bottom + 1); }).map(t => t.outerHTML)"
    )
    assert outside == []


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_series(cell: str, browser: Any, rng: np.random.Generator) -> None:
    layer = getattr(fastlstm, cell)(2, 6, num_layers=2, bidirectional=True, seed=0)
    x = rng.standard_normal((50, 2), dtype=np.float32)
    page = browser(fastlstm.look(layer, x), "#layer=3&unit=2&pin=20")
    trace = layer.trace(x)[3]
    assert page.text("#layer option:checked") == "layer 2, backward"
    assert f"{cell} cell, unit 2, at step 20" in page.text("#cell-title")
    state = trace.cell if cell == "LSTM" else trace.hidden
    shown = page.texts("#drawing text.value")
    before, now = number(shown[0]), state[20, 2]
    assert before == pytest.approx(state[21, 2], abs=0.01)  # it reads backward
    assert any(
        re.search(r"\d$", t) and number(t.split()[-1]) == pytest.approx(now, abs=0.01)
        for t in shown
    )
    assert len(page.texts("#chart .strip")) == 1 + len(trace._fields)
    page.run("document.getElementById('chart').focus()")
    page.press("ARROW_RIGHT", "ARROW_RIGHT")
    assert "step 22" in page.text("#readout")
    page.press("ARROW_RIGHT", "ARROW_RIGHT", shift=True)
    assert "on exactly here, 3 steps" in page.texts("#found h3")


def test_mean_of_all_units(brackets: LanguageModel, browser: Any) -> None:
    page = browser(fastlstm.look(brackets, SENTENCE), "#unit=mean&pin=14")
    trace = trace_of(brackets, SENTENCE)
    assert "mean of all units" in page.text("#cell-title")
    forget = page.texts("#drawing text.value")[4]
    assert number(forget) == pytest.approx(trace.forget[14].mean(), abs=0.01)


def test_in_a_frame(brackets: LanguageModel, browser: Any, tmp_path: Any) -> None:
    """As a notebook shows it: isolated, and without an address of its own."""
    look = fastlstm.look(brackets, SENTENCE)
    page = browser(look)
    frame = tmp_path / "notebook.html"
    frame.write_text(f"<!doctype html><meta charset=utf-8>{look._repr_html_()}", encoding="utf-8")
    page.chrome.get(frame.as_uri())
    page.chrome.switch_to.frame(0)
    page.until("document.documentElement?.dataset.ready !== undefined")
    assert "LSTM cell, unit" in page.text("#cell-title")
    page.run("document.querySelector('input[value=forget]').click()")
    assert "forget gate" in page.text("#readout")
    page.chrome.switch_to.default_content()
