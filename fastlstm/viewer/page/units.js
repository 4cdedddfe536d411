// A table of all units: range of the state, half-life, what changes it most.

const order = { by: "unit", down: false };

function columns() {
  const { statistics: s, state: name } = layer();
  const found = [
    { id: "unit", title: "unit", key: (k) => k, cell: (k) => element("button", { class: "link", onclick: () => set({ unit: k }) }, `${k}`) },
    { id: "least", title: "least", key: (k) => s.least[k], cell: (k) => signed(s.least[k]) },
    { id: "range", title: label(name), key: (k) => s.most[k] - s.least[k], cell: range },
    { id: "most", title: "most", key: (k) => s.most[k], cell: (k) => signed(s.most[k]) },
  ];
  if (s.half_life)
    found.push({ id: "half", title: "half-life, steps", key: (k) => s.half_life[k] ?? Infinity,
      cell: (k) => (s.half_life[k] === null ? "∞" : plain(s.half_life[k], 1)) });
  if (s.changed_by)
    found.push({ id: "changed", title: "changes most at", key: (k) => s.changed_by[k],
      cell: (k) => element("span", { class: "letters" }, ...Array.from(s.changed_by[k], (c) => element("b", {}, visible(c)))) });
  return found;
}

function range(unit) {
  const { least, most, mean } = layer().statistics;
  const limit = 1.2 * rangeOfMost([...most, ...least]);
  const x = (v) => Math.max(0, Math.min(100, 50 + (50 * v) / limit));
  const svg = shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(shape("line", { x1: 50, x2: 50, y1: 0, y2: 10, class: "zero" }),
    shape("rect", { x: x(least[unit]), width: Math.max(0.6, x(most[unit]) - x(least[unit])), y: 3, height: 4, class: "range" }),
    shape("line", { x1: x(mean[unit]), x2: x(mean[unit]), y1: 1, y2: 9, class: "mean" }));
  return svg;
}

// Nine of ten values are within it, so that one unit that drifts far does not hide the others.
function rangeOfMost(values) {
  const sizes = values.map(Math.abs).sort((a, b) => a - b);
  return Math.max(1e-9, sizes[Math.floor(0.9 * (sizes.length - 1))]);
}

let rows = new Map();

function drawUnits() {
  const shown = columns(), sorted = shown.find(({ id }) => id === order.by) ?? shown[0];
  const heads = shown.map(({ id, title }) => element("th", {
    scope: "col", "aria-sort": id !== sorted.id ? null : order.down ? "descending" : "ascending" },
    element("button", { onclick: () => sortBy(id) }, title)));
  const units = Array.from({ length: layer().units }, (_, k) => k);
  const compare = (a, b) => (sorted.key(a) < sorted.key(b) ? -1 : sorted.key(a) > sorted.key(b) ? 1 : a - b);
  units.sort(order.down ? (a, b) => compare(b, a) : compare);
  rows = new Map(units.map((k) => [k, element("tr", { onclick: () => set({ unit: k }) },
    ...shown.map(({ id, cell }) => element("td", { class: id }, cell(k))))]));
  $("table").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows.values())));
  markUnits();
}

function sortBy(id) {
  order.down = order.by === id ? !order.down : !["unit", "changed"].includes(id);
  order.by = id;
  drawUnits();
  document.querySelector("th[aria-sort] button").focus();
}

function markUnits() {
  document.querySelector("tr.chosen")?.classList.remove("chosen");
  rows.get(state.unit)?.classList.add("chosen");
}
