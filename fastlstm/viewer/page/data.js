// The data of the page: tables of integers with scales, and the layers made of them.

class Table {
  constructor(about, buffer) {
    const types = { Int8: Int8Array, Uint8: Uint8Array, Int16: Int16Array, Uint16: Uint16Array };
    [this.rows, this.columns] = about.shape;
    this.data = new types[about.type](buffer, about.at, this.rows * this.columns);
    this.scales = about.scale;
  }

  scale(row) {
    return this.scales.length > 1 ? this.scales[row] : this.scales[0];
  }

  at(row, column) {
    return this.data[row * this.columns + column] * this.scale(row);
  }

  row(row) {
    const scale = this.scale(row), start = row * this.columns;
    return Float32Array.from(this.data.subarray(start, start + this.columns), (v) => v * scale);
  }
}

async function unpack(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

class Layer {
  constructor(about, buffer, steps) {
    Object.assign(this, about);
    this.steps = steps;
    const tables = (of) => of && Object.fromEntries(
      Object.entries(of).map(([name, table]) => [name, new Table(table, buffer)]));
    this.tables = tables(about.values);
    this.weights = tables(about.weights);
    this.cache = new Map();
  }

  // The number of hidden values: less than units with a projection.
  get outputs() {
    return this.tables.hidden ? this.tables.hidden.rows : this.units;
  }

  // Names of what a unit has: gates, candidate, states.
  get names() {
    const all = Object.keys(this.tables);
    if (!all.includes("hidden")) all.push("hidden");
    return all.filter((name) => name !== "hidden" || this.outputs === this.units);
  }

  at(name, unit, t) {
    if (t < 0 || t >= this.steps) return 0;
    const table = this.tables[name];
    if (table) return table.at(unit, t);
    return this.tables.output.at(unit, t) * Math.tanh(this.tables.cell.at(unit, t));
  }

  // One value of all steps; of all units, the mean of magnitudes.
  series(name, unit) {
    return this.summary(name, unit).series;
  }

  // Computed when first asked for: the series, its largest magnitude, its mean.
  summary(name, unit) {
    const key = `${name} ${unit}`;
    if (!this.cache.has(key)) {
      if (this.cache.size > 2 * this.units) this.cache.clear();
      const series = unit === null ? this.mean(name) : this.one(name, unit);
      let most = 1e-9, sum = 0;
      for (const value of series) {
        most = Math.max(most, Math.abs(value));
        sum += value;
      }
      this.cache.set(key, { series, most, mean: sum / series.length });
    }
    return this.cache.get(key);
  }

  one(name, unit) {
    if (this.tables[name]) return this.tables[name].row(unit);
    const output = this.tables.output.row(unit);
    return this.tables.cell.row(unit).map((c, t) => output[t] * Math.tanh(c));
  }

  mean(name) {
    const sum = new Float32Array(this.steps);
    for (let unit = 0; unit < this.units; unit++)
      this.one(name, unit).forEach((value, t) => { sum[t] += Math.abs(value) / this.units; });
    return sum;
  }

  // The step whose state this layer has in hand when it reads step t.
  before(t) {
    return this.reverse ? t + 1 : t - 1;
  }

  isGate(name) {
    return this.gates.includes(name);
  }

  // What colours are measured against: 1 for gates, else the largest magnitude.
  limit(name, unit) {
    if (this.isGate(name)) return 1;
    return this.summary(name, unit).most;
  }
}
