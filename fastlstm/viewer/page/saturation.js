// For each gate a dot per unit: how often it is shut (below 0.1), how often open (above 0.9).

const SIDE = 150;
let dots = [];

function drawSaturation() {
  const { saturation } = layer().statistics;
  $("saturation").hidden = !Object.keys(saturation).length;
  dots = [];
  $("scatter").replaceChildren(...Object.entries(saturation).map(([gate, parts]) => panel(gate, parts)));
  markSaturation();
}

function panel(gate, [shut, open]) {
  const svg = shape("svg", { viewBox: `-24 -8 ${SIDE + 32} ${SIDE + 30}`, role: "img",
    "aria-label": `${label(gate)}: share of steps shut and open, a dot for each unit` });
  const y = (v) => SIDE * (1 - v), x = (v) => SIDE * v;
  svg.append(shape("path", { d: `M0 0V${SIDE}H${SIDE}`, class: "axis" }),
    shape("path", { d: `M0 0L${SIDE} ${SIDE}`, class: "grid" }),
    shape("text", { x: SIDE / 2, y: SIDE + 16, class: "small middle" }, "shut"),
    shape("text", { x: -SIDE / 2, y: -12, class: "small middle", transform: "rotate(-90)" }, "open"));
  shut.forEach((part, unit) => {
    const dot = shape("circle", { cx: x(part), cy: y(open[unit]), r: 3.2, class: "dot" });
    dot.append(shape("title", {}, `unit ${unit}: shut ${percent(part)}, open ${percent(open[unit])}`));
    dots.push([unit, dot]);
    svg.append(dot);
  });
  const nearest = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const away = (unit) => (x(shut[unit]) - point.x) ** 2 + (y(open[unit]) - point.y) ** 2;
    return shut.reduce((best, _, unit) => (away(unit) < away(best) ? unit : best), 0);
  };
  svg.addEventListener("click", (event) => set({ unit: nearest(event) }));
  return element("figure", {}, svg, element("figcaption", {}, label(gate)));
}

function markSaturation() {
  for (const [unit, dot] of dots) {
    const chosen = unit === state.unit;
    dot.classList.toggle("chosen", chosen);
    dot.setAttribute("r", chosen ? 6 : 3.2);
    if (chosen) dot.parentNode.append(dot); // above the others
  }
}
