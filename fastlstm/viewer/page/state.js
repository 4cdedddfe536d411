// What is shown now, and who draws it again when it changes.

const state = {
  layer: 0, unit: 0, show: "", at: 0, pin: 0, arcs: true,
  selection: null, anchor: 0, // [first, last], and where it was begun
  threshold: 0.3, margin: 1,
};
const views = [];

// A view names what it shows; `draw` is called when one of these has changed.
function view(names, draw) {
  views.push({ names, draw });
}

function set(change) {
  const changed = Object.keys(change).filter((name) => state[name] !== change[name]);
  Object.assign(state, change);
  for (const { names, draw } of views)
    if (names.some((name) => changed.includes(name))) draw();
  if (changed.some((name) => KEPT.includes(name))) keepInAddress();
}

const KEPT = ["layer", "unit", "show", "pin", "selection"];

function keepInAddress() {
  const parts = KEPT.filter((name) => state[name] !== null)
    .map((name) => `${name}=${Array.isArray(state[name]) ? state[name].join("-") : state[name]}`);
  if (state.unit === null) parts.push("unit=mean");
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch { /* a frame without an address of its own */ }
}

// What the address says, as far as there are such layers, units and steps.
function fromAddress(layers, steps) {
  const said = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const whole = (text, below) => /^\d+$/.test(text ?? "") && +text < below ? +text : undefined;
  const found = {};
  found.layer = whole(said.layer, layers.length) ?? 0;
  const layer = layers[found.layer];
  const unit = said.unit === "mean" ? null : whole(said.unit, layer.units);
  if (unit !== undefined) found.unit = unit;
  if (layer.names.includes(said.show)) found.show = said.show;
  const pin = whole(said.pin, steps);
  if (pin !== undefined) found.pin = found.at = pin;
  const ends = (said.selection ?? "").split("-").map((end) => whole(end, steps));
  if (ends.length === 2 && ends[0] !== undefined && ends[0] <= ends[1])
    Object.assign(found, { selection: ends, anchor: ends[0] });
  return found;
}
