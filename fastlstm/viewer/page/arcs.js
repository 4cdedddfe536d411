// What mattered: arcs from a place back to the earlier characters with the largest gradients.

let placeOf = new Map(); // step: row of the tables

function readWhy() {
  if (about.why) placeOf = new Map(about.why.places.map((place, row) => [place, row]));
  $("arcs-label").hidden = !about.why;
}

// [[step, share]], the largest first; null where nothing is known.
function mattered(t) {
  const row = placeOf.get(t);
  if (row === undefined) return null;
  const { stepTable, shareTable } = about.why, found = [];
  for (let i = 0; i < shareTable.columns; i++) {
    const share = shareTable.at(row, i);
    if (share > 0.01) found.push([stepTable.at(row, i), share]);
  }
  return found;
}

function drawArcs() {
  const found = (state.arcs && mattered(state.at)) || [];
  if (characters) arcsOverText(found);
  else arcsOverChart(found);
}

function arcsOverText(found) {
  const svg = $("arc-lines"), box = $("text");
  svg.setAttribute("width", box.scrollWidth);
  svg.setAttribute("height", box.scrollHeight);
  svg.style.top = `${-box.scrollTop}px`;
  const place = (t) => {
    const span = spans[t];
    return [span.offsetLeft + Math.min(span.offsetWidth, 11) / 2, span.offsetTop + 3];
  };
  svg.replaceChildren(...found.filter(([t]) => t !== state.at).map(([t, share]) =>
    arc(place(t), place(state.at), share)));
}

function arcsOverChart(found) {
  const box = $("chart");
  let svg = $("chart-arcs");
  if (!svg) {
    svg = shape("svg", { id: "chart-arcs", "aria-hidden": "true" });
    box.prepend(svg);
  }
  const x = (t) => (t / Math.max(1, steps - 1)) * box.clientWidth;
  svg.replaceChildren(...found.filter(([t]) => t !== state.at).map(([t, share]) =>
    arc([x(t), 34], [x(state.at), 34], share)));
}

function arc([x1, y1], [x2, y2], share) {
  const lift = Math.min(30, 6 + Math.abs(x2 - x1) * 0.12 + Math.abs(y2 - y1) * 0.1);
  const d = `M${x1} ${y1}C${x1} ${y1 - lift} ${x2} ${y2 - lift} ${x2} ${y2}`;
  return shape("path", { d, "stroke-width": (0.8 + 7 * share).toFixed(2), opacity: (0.35 + 0.6 * share).toFixed(2) });
}
