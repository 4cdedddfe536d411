// Values over time as lines: of the chosen unit below a text; of all there is for a series.

const MOST_INPUTS = 8;

function strips() {
  const now = layer();
  if (characters) return [{ name: state.show, lines: [now.series(state.show, state.unit)] }];
  const inputs = [];
  for (let i = 0; i < Math.min(MOST_INPUTS, about.inputs.rows); i++) inputs.push(about.inputs.row(i));
  const more = about.inputs.rows - inputs.length;
  const title = `input, ${counted(about.inputs.rows, "feature")}${more > 0 ? `, ${MOST_INPUTS} shown` : ""}`;
  const rest = [state.show, ...now.names.filter((name) => name !== state.show)];
  return [{ title, lines: inputs },
    ...rest.map((name) => ({ name, lines: [now.series(name, state.unit)] }))];
}

function drawChart() {
  const box = $("chart");
  box.replaceChildren(...strips().map(strip));
  box.append(element("div", { id: "chart-at" }), element("div", { id: "chart-selection" }));
  markChart();
}

function strip({ name, title, lines }) {
  const gate = name && layer().isGate(name);
  const all = lines.flatMap((line) => [...line]);
  const most = gate ? 1 : Math.max(1e-9, ...minmax(all).map(Math.abs));
  const least = gate || minmax(all)[0] >= 0 ? 0 : -most;
  const svg = shape("svg", { viewBox: `0 0 ${Math.max(1, steps - 1)} 1`, preserveAspectRatio: "none" });
  const y = (v) => (1 - (v - least) / (most - least)).toFixed(4);
  svg.append(shape("line", { x1: 0, x2: steps, y1: y(0), y2: y(0), class: "zero" }));
  lines.forEach((line, i) => {
    const path = (values) => Array.from(values, (v, t) => `${t ? "L" : "M"}${t} ${y(v)}`).join("");
    const area = (values, kind) => svg.append(shape("path", {
      d: `${path(values)}L${values.length - 1} ${y(0)}L0 ${y(0)}Z`, class: `area ${kind}` }));
    if (lines.length === 1) {
      area(line.map((v) => Math.max(0, v)), "above");
      area(line.map((v) => Math.min(0, v)), "below");
    }
    svg.append(shape("path", { d: path(line), class: `line line${lines.length === 1 ? "" : i % 4}` }));
  });
  const row = element("div", { class: `strip ${gate ? "gate" : ""} ${name === state.show ? "shown" : ""}` });
  row.append(element("span", { class: "strip-name" }, title ?? label(name)),
    element("span", { class: "strip-most" }, gate ? "1" : signed(most)),
    element("span", { class: "strip-least" }, least < 0 ? signed(least) : "0"), svg);
  if (name) row.addEventListener("dblclick", () => set({ show: name }));
  return row;
}

function minmax(values) {
  let least = Infinity, most = -Infinity;
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

const across = (t) => `${(100 * t) / Math.max(1, steps - 1)}%`;

function markChart() {
  $("chart-at").style.left = across(state.at);
  const chosen = $("chart-selection"), [first, last] = state.selection ?? [0, -1];
  chosen.hidden = last < first;
  chosen.style.left = across(first);
  chosen.style.width = `${(100 * Math.max(0, last - first)) / Math.max(1, steps - 1)}%`;
}

function listenToChart() {
  const box = $("chart");
  const step = (event) => {
    const { left, width } = box.getBoundingClientRect();
    return Math.max(0, Math.min(steps - 1, Math.round(((event.clientX - left) / width) * (steps - 1))));
  };
  box.addEventListener("pointerdown", (event) => {
    box.setPointerCapture(event.pointerId);
    beginDrag(step(event));
    showInText(state.pin);
  });
  box.addEventListener("pointermove", (event) => dragTo(step(event), event));
  box.addEventListener("pointerleave", () => set({ at: state.pin }));
  box.addEventListener("keydown", (event) => typed(event, (by) => state.pin + 10 * by));
}
