// The LSTM's cell: the belt of the cell state on top, what enters it below.

const LSTM = {
  size: [0, 424],

  draw(d, of) {
    const [gate, candidate, shown] = of.functions.map(named);
    d.bus(`M16 ${HIDDEN_BUS}H588`);
    d.bus(`M70 410V${INPUT_BUS}H552`);
    d.line("cell", `M650 ${BELT}V98`);
    d.line("cell", `M373 ${BELT}H722`, true);
    d.line("before", `M16 ${BELT}H147`, true);
    d.line("kept", `M173 ${BELT}H347`, true);
    d.line("forget", `M160 ${BOX_TOP}V${BELT + 14}`, true);
    d.line("input", `M290 ${BOX_TOP}V152H346`, true);
    d.line("candidate", `M430 ${BOX_TOP}V152H374`, true);
    d.line("wrote", `M360 139V${BELT + 14}`, true);
    d.line("output", `M570 ${BOX_TOP}V152H636`, true);
    d.line("shown", "M650 128V138", true);
    d.line("hidden", `M650 166V${HIDDEN_BUS}H722`, true);
    d.node(160, BELT, "×");
    d.node(360, BELT, "+");
    d.node(360, 152, "×");
    d.node(650, 152, "×");
    d.oval(650, 113, shown);
    d.gate("forget", 160, "forget", gate);
    d.gate("input", 290, "input", gate);
    d.gate("candidate", 430, "candidate", candidate);
    d.gate("output", 570, "output", gate);
    d.text("before-name", 16, BELT - 34, "small", "cell state before");
    d.text("before", 16, BELT - 15, "value");
    d.text("kept", 260, BELT - 15, "value middle");
    d.text("cell-name", 722, BELT - 34, "small end", "cell state");
    d.text("cell", 722, BELT - 15, "value end");
    d.text("wrote", 373, 116, "value");
    d.text("forget", 171, 204, "value");
    d.text("input", 301, 204, "value");
    d.text("candidate", 441, 204, "value");
    d.text("output", 581, 204, "value");
    d.text("hidden-name", 722, HIDDEN_BUS + 26, "small end", of.outputs === of.units ? "hidden state" : "to the projection");
    d.text("hidden", 722, HIDDEN_BUS + 44, "value end");
    d.text("h before", 16, HIDDEN_BUS - 11, "small", "h before");
    d.text("x", 84, 414, "letter");
  },

  values: (of, unit, t) => valuesOf(LSTM, of, unit, t),

  ofUnit(of, unit, t) {
    const v = { before: of.at("cell", unit, of.before(t)) };
    for (const name of ["forget", "input", "candidate", "output", "cell"]) v[name] = of.at(name, unit, t);
    v.kept = v.forget * v.before;
    v.wrote = v.input * v.candidate;
    v.shown = Math.tanh(v.cell);
    v.hidden = of.outputs === of.units ? of.at("hidden", unit, t) : v.output * v.shown;
    if (of.functions[2] !== "tanh") v.shown = v.output > 0.001 ? v.hidden / v.output : 0;
    return v;
  },

  update(drawing, of, unit, t) {
    const v = LSTM.values(of, unit, t), limit = of.limit("cell", unit);
    const widths = {}, words = { x: reads(t) };
    for (const name of ["before", "kept", "wrote", "cell"]) widths[name] = [v[name], limit];
    for (const name of ["forget", "input", "candidate", "output", "shown", "hidden"]) widths[name] = [v[name], 1];
    for (const name of of.gates) words[name] = plain(v[name]);
    const number = unit === null ? plain : signed;
    for (const name of ["before", "candidate", "cell", "hidden"]) words[name] = number(v[name]);
    if (of.adds_up) {
      words.kept = `kept ${number(v.kept)}`;
      words.wrote = `wrote ${number(v.wrote)}`;
    }
    const found = enter(of, unit, t, widths, words);
    drawing.update(widths, words);
    return LSTM.inWords(of, unit, t, v, found);
  },

  inWords(of, unit, t, v, found) {
    const number = unit === null ? plain : signed;
    const said = [`${reading(t)}, ${who(unit)} keeps ${percent(v.forget)} of its cell state` +
      (of.adds_up ? ` (${number(v.before)} → ${number(v.kept)}) and writes ${number(v.wrote)}: now ${number(v.cell)}.`
        : `; it was ${number(v.before)}, and is now ${number(v.cell)}. An option of this layer has a part in that.`)];
    const what = `${percent(v.output)} of ${named(of.functions[2])} ${number(v.cell)}`;
    if (of.shows) said.push(`It shows ${what}: a hidden state of ${number(v.hidden)}.`);
    else if (of.outputs !== of.units) said.push(`It shows ${what} to the projection.`);
    else said.push(`Its hidden state is ${number(v.hidden)}; an option of this layer has a part in that.`);
    if (found) said.push(followed("forget gate", found.forget));
    return said.join(" ");
  },
};

function followed(gate, part) {
  const x = shareOfInput(part);
  const what = characters ? "the character" : "the input";
  return x >= 0.5
    ? `Its ${gate} follows ${what} (${percent(x)}) more than the hidden state before (${percent(1 - x)}).`
    : `Its ${gate} follows the hidden state before (${percent(1 - x)}) more than ${what} (${percent(x)}).`;
}
