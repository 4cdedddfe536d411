// A cell as textbooks draw it: lines as wide as what passes, nodes, boxes of gates.

const SIGNS = { sigmoid: "σ" };
const named = (name) => SIGNS[name] ?? name.replaceAll("_", " ");

const INPUT_BUS = 366, HIDDEN_BUS = 314, BOX_TOP = 218, BOX_HEIGHT = 46, BELT = 66;

class Drawing {
  constructor([top, height]) {
    this.svg = $("drawing");
    this.svg.setAttribute("viewBox", `0 ${top} 740 ${height}`);
    this.svg.replaceChildren(arrowHeads());
    this.lines = new Map();
    this.texts = new Map();
    // What is drawn later lies above.
    for (const name of ["buses", "back", "front"]) this.svg.append(this[name] = shape("g"));
  }

  // A line whose width and sign `values[key]` gives; a halo keeps crossing lines apart.
  line(key, d, arrow = false) {
    this.back.append(shape("path", { d, class: "halo" }));
    const made = shape("path", { d, class: "flow" });
    if (arrow) made.dataset.arrow = "";
    this.back.append(made);
    this.lines.set(made, key);
  }

  bus(d) {
    this.buses.append(shape("path", { d, class: "bus" }));
  }

  node(x, y, sign) {
    this.front.append(shape("circle", { cx: x, cy: y, r: 13, class: "node" }),
      shape("text", { x, y: y + 5.5, class: "sign" }, sign));
  }

  oval(x, y, text) {
    this.front.append(shape("ellipse", { cx: x, cy: y, rx: 30, ry: 15, class: "node" }),
      shape("text", { x, y: y + 4.5, class: "function" }, text));
  }

  box(x, name, curve) {
    this.front.append(
      shape("rect", { x: x - 44, y: BOX_TOP, width: 88, height: BOX_HEIGHT, rx: 7, class: "box" }),
      shape("text", { x, y: BOX_TOP + 19, class: "name" }, name),
      shape("text", { x, y: BOX_TOP + 37, class: "function" }, curve));
  }

  // A box with what enters it: x from below on its left, h on its right, and their shares.
  gate(key, x, name, curve, aside = 27) {
    this.line(`${key} x`, `M${x - 18} ${INPUT_BUS}V${BOX_TOP + BOX_HEIGHT + 1}`, true);
    this.line(`${key} h`, `M${x + 18} ${HIDDEN_BUS}V${BOX_TOP + BOX_HEIGHT + 1}`, true);
    this.box(x, name, curve);
    this.text(`${key} x`, x - 26, INPUT_BUS - 9, "share end");
    this.text(`${key} h`, x + aside, HIDDEN_BUS - 10, "share");
  }

  text(key, x, y, style = "", fixed = null) {
    const made = shape("text", { x, y, class: style }, fixed ?? "");
    this.front.append(made);
    if (fixed === null) this.texts.set(made, key);
  }

  // `widths`: key: [value, limit]; `words`: key: text.
  update(widths, words) {
    for (const [path, key] of this.lines) {
      const [value, limit] = widths[key] ?? [0, 1];
      const size = Math.min(1, Math.abs(value) / limit);
      path.style.strokeWidth = (1 + 8 * size).toFixed(2);
      path.classList.toggle("negative", value < 0);
      path.classList.toggle("faint", size < 0.02);
      if ("arrow" in path.dataset)
        path.setAttribute("marker-end", `url(#arrow${value < 0 ? "-negative" : ""})`);
    }
    for (const [text, key] of this.texts) text.textContent = words[key] ?? "";
  }
}

function arrowHeads() {
  const defs = shape("defs");
  for (const name of ["arrow", "arrow-negative"]) {
    const marker = shape("marker", {
      id: name, viewBox: "0 0 12 12", refX: 8, refY: 6, markerWidth: 15, markerHeight: 15,
      markerUnits: "userSpaceOnUse", orient: "auto", class: name });
    marker.append(shape("path", { d: "M0 0.5L12 6L0 11.5Z" }));
    defs.append(marker);
  }
  return defs;
}

// The lines of x and h into each gate, and their shares in words.
function enter(of, unit, t, widths, words) {
  const found = contributions(of, unit, t);
  for (const [gate, part] of Object.entries(found ?? {})) {
    const x = shareOfInput(part);
    widths[`${gate} x`] = [Math.sign(part.x) * x, 1];
    widths[`${gate} h`] = [Math.sign(part.h) * (1 - x), 1];
    words[`${gate} x`] = percent(x);
    words[`${gate} h`] = percent(1 - x);
  }
  return found;
}
