// How much the input and the hidden state before contribute to each gate of a unit: W x and U h.

// What this layer reads at step t: the embedding or the series, or the layers below.
function inputAt(of, t) {
  if (of.below.length) {
    return of.below.flatMap((number) =>
      Array.from({ length: layers[number].outputs }, (_, unit) => layers[number].at("hidden", unit, t)));
  }
  const { inputs, table, codes } = about;
  if (table) return table.row(codes.at(0, t));
  return Array.from({ length: inputs.rows }, (_, i) => inputs.at(i, t));
}

function dot(matrix, row, vector) {
  const start = row * matrix.columns;
  let sum = 0;
  for (let j = 0; j < vector.length; j++) sum += matrix.data[start + j] * vector[j];
  return sum * matrix.scale(row);
}

// {gate: {x, h, bias}} of a unit; of all units, means of magnitudes.  null: there is more to a gate.
function contributions(of, unit, t) {
  if (!of.weights) return null;
  const x = inputAt(of, t), before = of.before(t);
  const h = Array.from({ length: of.outputs }, (_, k) => of.at("hidden", k, before));
  const names = Object.keys(of.tables).filter((name) => !["cell", "hidden"].includes(name));
  const found = {};
  (names.length ? names : ["hidden"]).forEach((name, gate) => {
    const resets = of.cell === "GRU" && name === "candidate";
    // The reset gate lets the past into a GRU's candidate: before the product with U, or after it.
    const past = resets && !of.reset_after ? h.map((value, k) => value * of.at("reset", k, t)) : h;
    const one = (k) => contribution(of.weights, gate * of.units + k, x, past,
      resets && of.reset_after ? of.at("reset", k, t) : 1);
    found[name] = unit === null ? meanOf(of.units, one) : one(unit);
  });
  return found;
}

function contribution({ input, hidden, bias_ih, bias_hh }, row, x, h, reset) {
  return {
    x: dot(input, row, x), h: reset * dot(hidden, row, h),
    bias: bias_ih.at(row, 0) + reset * bias_hh.at(row, 0),
  };
}

function meanOf(units, one) {
  const sum = { x: 0, h: 0, bias: 0 };
  for (let k = 0; k < units; k++) {
    const part = one(k);
    for (const name of Object.keys(sum)) sum[name] += Math.abs(part[name]) / units;
  }
  return sum;
}

// The part of x in what x and h bring, 0 to 1.
function shareOfInput({ x, h }) {
  const both = Math.abs(x) + Math.abs(h);
  return both > 0 ? Math.abs(x) / both : 0.5;
}
