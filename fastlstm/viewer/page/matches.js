// Which units are on exactly in the selected stretch, and where else they are on together.

const MOST_NEAR = 24, MOST_PLACES = 12, SHOWN_AROUND = 12;

// +1, -1: the state is on, with that sign; 0: off.  Measured against the unit's largest magnitude.
function signature(unit) {
  const values = layer().series(layer().state, unit);
  const limit = layer().limit(layer().state, unit) * state.threshold;
  return (t) => (values[t] >= limit ? 1 : values[t] <= -limit ? -1 : 0);
}

// [{unit, sign, off, wrong, stands}]: how many steps of the stretch and beside it are not as they
// should be, and by how much the stretch stands out from the rest, in parts of the unit's range.
function matches([first, last]) {
  const beside = [];
  for (let i = 1; i <= state.margin; i++)
    beside.push(...[first - i, last + i].filter((t) => t >= 0 && t < steps));
  const found = [];
  for (let unit = 0; unit < layer().units; unit++) {
    const on = signature(unit), inside = { "-1": 0, 0: 0, 1: 0 }, outside = { "-1": 0, 0: 0, 1: 0 };
    for (let t = first; t <= last; t++) inside[on(t)]++;
    for (const t of beside) outside[on(t)]++;
    const length = last - first + 1;
    for (const sign of [1, -1]) {
      const stands = sign * standsOut(unit, first, last);
      found.push({ unit, sign, stands, off: false, wrong: length - inside[sign] + outside[sign] });
      if (beside.length)
        found.push({ unit, sign, stands: -stands, off: true, wrong: inside[sign] + beside.length - outside[sign] });
    }
  }
  return found;
}

function standsOut(unit, first, last) {
  const { series, most, mean } = layer().summary(layer().state, unit);
  let sum = 0;
  for (let t = first; t <= last; t++) sum += series[t];
  return (sum / (last - first + 1) - mean) / most;
}

function drawMatches() {
  const chosen = state.selection;
  $("matches-controls").hidden = !chosen;
  $("threshold-value").textContent = percent(state.threshold);
  if (!chosen) {
    const what = characters ? "the text" : "the lines";
    return $("found").replaceChildren(element("p", { class: "hint" },
      `Drag over ${what}, or hold Shift and use the arrow keys, to find the units that are on there and nowhere beside it.`));
  }
  const all = matches(chosen), length = chosen[1] - chosen[0] + 1;
  const near = Math.max(1, Math.floor(length / 3));
  all.sort((a, b) => a.wrong - b.wrong || b.stands - a.stands);
  const exact = all.filter((m) => !m.off && m.wrong === 0);
  const close = all.filter((m) => !m.off && m.wrong > 0 && m.wrong <= near)
    .slice(0, MOST_NEAR);
  const off = all.filter((m) => m.off && m.wrong === 0);
  const unit = (m) => unitButton(m.unit, m.sign, m.wrong ? `${m.wrong} wrong` : "");
  const together = exact.length ? exact : close.slice(0, 3);
  $("found").replaceChildren(
    group(`on exactly here, ${counted(length, characters ? "character" : "step")}`, exact.map(unit)),
    group("nearly", close.map(unit)),
    group("off exactly here", off.map(unit)),
    group(exact.length ? "elsewhere together" : "elsewhere, the nearest", elsewhere(together, chosen)));
}

function group(title, items) {
  return element("div", { class: "group" }, element("h3", {}, title),
    ...(items.length ? items : [element("span", { class: "none" }, "none")]));
}

function unitButton(unit, sign, note) {
  return element("button", { class: `unit ${sign < 0 ? "negative" : "positive"}`, onclick: () => set({ unit }) },
    `${unit}`, element("sup", {}, sign < 0 ? "−" : "+"), note ? element("small", {}, note) : "");
}

// Other stretches in which all of these units are on, or most of many; the longest first.
function elsewhere(units, [first, last]) {
  if (!units.length) return [];
  const on = units.map((m) => ({ at: signature(m.unit), sign: m.sign }));
  const enough = units.length > 5 ? 0.8 * units.length : units.length;
  const runs = [];
  for (let t = 0; t <= steps; t++) {
    const together = t < steps && on.filter(({ at, sign }) => at(t) === sign).length >= enough;
    if (together && runs.at(-1)?.[1] === t - 1) runs.at(-1)[1] = t;
    else if (together) runs.push([t, t]);
  }
  const others = runs.filter(([a, b]) => b < first || a > last);
  others.sort((a, b) => (b[1] - b[0]) - (a[1] - a[0]));
  const shown = others.slice(0, MOST_PLACES).map(placeButton);
  if (others.length > MOST_PLACES) shown.push(element("span", { class: "none" }, `and ${others.length - MOST_PLACES} more`));
  return shown;
}

function placeButton([a, b]) {
  const text = (from, to) => characters.slice(Math.max(0, from), Math.max(0, to)).map(visible).join("");
  const show = () => {
    set({ at: a, pin: a, anchor: a, selection: [a, b] });
    showInText(a);
    $(characters ? "text" : "chart").focus(); // this button is gone
  };
  if (!characters) return element("button", { class: "place", onclick: show }, `steps ${a} to ${b}`);
  return element("button", { class: "place", onclick: show, title: `characters ${a} to ${b}` },
    text(a - SHOWN_AROUND, a), element("mark", {}, text(a, Math.min(b + 1, a + 40))), text(b + 1, b + 1 + SHOWN_AROUND));
}

function listenToMatches() {
  $("threshold").addEventListener("input", (event) => set({ threshold: +event.target.value }));
  $("margin").addEventListener("change", (event) => set({ margin: +event.target.value }));
  $("clear").addEventListener("click", () => set({ selection: null }));
}
