// The cell at the step under the cursor.

const CELLS = { LSTM, GRU, RNN };
let drawing = null;

// Of a unit, or of all of them the mean of magnitudes.
function valuesOf(cell, of, unit, t) {
  if (unit !== null) return cell.ofUnit(of, unit, t);
  const sum = {};
  for (let k = 0; k < of.units; k++)
    for (const [name, value] of Object.entries(cell.ofUnit(of, k, t)))
      sum[name] = (sum[name] ?? 0) + Math.abs(value) / of.units;
  return sum;
}

function drawCell() {
  const of = layer(), cell = CELLS[of.cell]; // all layers have the same
  if (!drawing) {
    drawing = new Drawing(cell.size);
    cell.draw(drawing, of);
  }
  const { unit, at } = state;
  const which = unit === null ? "mean of all units" : `unit ${unit}`;
  const where = characters ? `character ${at}, ${reads(at)}` : `step ${at}`;
  $("cell-title").textContent = `${of.cell} cell, ${which}, at ${where}`;
  const words = cell.update(drawing, of, unit, at);
  $("cell-words").textContent = of.weights ? words
    : `${words} What enters the gates of this layer is more than x and h: no shares.`;
  const value = number(of.series(state.show, unit)[at]);
  $("readout").textContent = `${where} of ${steps.toLocaleString("en")}, ${which}, ${label(state.show)} ${value}`;
}

const number = (value) => (layer().isGate(state.show) || state.unit === null ? plain : signed)(value);
