// Reads the data, connects the controls, and draws everything once.

let letters = [];

function fillControls() {
  $("model").textContent = about.model;
  const mean = about.next?.mean == null ? "" : ` · ${plain(about.next.mean)} bits per character`;
  $("summary").textContent = counted(steps, characters ? "character" : "step") + mean;
  layers.forEach((of, i) => $("layer").append(element("option", { value: i }, of.label)));
  $("layer-label").hidden = layers.length < 2;
  $("layer").addEventListener("change", (event) => {
    const next = layers[+event.target.value];
    set({ layer: +event.target.value, show: next.names.includes(state.show) ? state.show : next.state });
  });
  $("unit").addEventListener("input", (event) => {
    const unit = Math.round(+event.target.value);
    if (event.target.value !== "" && unit >= 0 && unit < layer().units) set({ unit });
  });
  $("unit-before").addEventListener("click", () => changeUnit(-1));
  $("unit-after").addEventListener("click", () => changeUnit(1));
  $("mean").addEventListener("change", (event) => set({ unit: event.target.checked ? null : chosenUnit }));
  $("arcs").addEventListener("change", (event) => set({ arcs: event.target.checked }));
}

let chosenUnit = 0; // goes on when "mean of all" is switched off

function drawControls() {
  if (state.unit !== null) chosenUnit = state.unit;
  $("layer").value = state.layer;
  $("unit").max = layer().units - 1;
  if (document.activeElement !== $("unit") || +$("unit").value !== state.unit) $("unit").value = state.unit ?? "";
  $("mean").checked = state.unit === null;
  for (const radio of document.getElementsByName("show")) radio.checked = radio.value === state.show;
}

// All layers have the same, so that a radio button with the focus stays.
function fillShow() {
  $("show").append(...layer().names.map((name) => {
    const radio = element("input", { type: "radio", name: "show", value: name, onchange: () => set({ show: name }) });
    return element("label", {}, radio, element("span", {}, label(name)));
  }));
}

function drawLegend() {
  const limit = layer().limit(state.show, state.unit), gate = layer().isGate(state.show);
  const whole = gate || state.unit === null;
  const ramp = element("span", { class: `ramp ${whole ? "gate" : "both"}`, "aria-hidden": "true" });
  const most = gate ? "1, open" : whole ? plain(limit) : signed(limit);
  const parts = [element("span", {}, whole ? (gate ? "0, shut" : "0") : signed(-limit)), ramp, element("span", {}, most)];
  if (characters) parts.push(element("span", { class: "aside" }, "underlined: surprise of ",
    ...SURPRISES.flatMap((bits, i) => [element("u", { "data-surprise": i + 1 }, `${bits}`), " "]), "bits and more"));
  if (about.why) {
    const { reach } = about.why, way = layers.some((of) => of.reverse) ? "either way" : "back";
    parts.push(element("span", { class: "aside" }, `arcs: the largest shares of the gradient, ${
      reach ? `at most ${counted(reach, "step")} ${way}` : "of all steps"}`));
  }
  $("legend").replaceChildren(...parts);
}

async function main() {
  const buffer = await unpack($("data").textContent);
  layers = about.layers.map((of) => new Layer(of, buffer, steps));
  const { input, next, why } = about;
  if (input.values) about.inputs = new Table(input.values, buffer);
  if (input.table) Object.assign(about, { table: new Table(input.table, buffer), codes: new Table(input.codes, buffer) });
  if (next) {
    letters = Array.from(next.alphabet);
    Object.assign(next, { likeliestTable: new Table(next.likeliest, buffer), chanceTable: new Table(next.chances, buffer) });
  }
  if (why) Object.assign(why, { stepTable: new Table(why.steps, buffer), shareTable: new Table(why.shares, buffer) });
  document.body.classList.toggle("series", !characters);
  readWhy();
  Object.assign(state, { unit: about.unit, at: about.at, pin: about.at, show: layers[0].state }, fromAddress(layers, steps));
  fillText();
  fillControls();
  fillShow();
  listenToChart();
  listenToMatches();

  view(["layer", "unit", "show"], drawControls);
  view(["layer", "unit", "show"], drawLegend);
  if (characters) view(["layer", "unit", "show"], colourText);
  view(["layer", "unit", "show"], drawChart);
  if (characters) view(["at", "selection"], markText);
  view(["at", "selection"], markChart);
  view(["layer", "unit", "show", "at"], drawCell);
  view(["at"], drawNext);
  view(["at", "arcs", "layer", "unit", "show"], drawArcs);
  view(["selection", "layer", "threshold", "margin"], drawMatches);
  view(["layer"], drawSaturation);
  view(["unit", "layer"], markSaturation);
  view(["layer"], drawUnits);
  view(["unit", "layer"], markUnits);
  for (const { draw } of views) draw();
  showInText(state.pin);
  $("text")?.addEventListener("scroll", drawArcs);
  addEventListener("resize", drawArcs);
  document.documentElement.dataset.ready = "";
}

main();
