// The GRU's cell: its hidden state is the belt, the update gate keeps or replaces.

const GRU = {
  size: [0, 424],

  draw(d) {
    d.bus(`M16 ${HIDDEN_BUS}H538`);
    d.bus(`M70 410V${INPUT_BUS}H502`);
    d.line("before", `M16 ${BELT}H157`, true);
    d.line("kept", `M183 ${BELT}H507`, true);
    d.line("hidden", `M533 ${BELT}H722`, true);
    d.line("replaced", "M170 152H506", true);
    d.line("update", `M170 ${BOX_TOP}V${BELT + 14}`, true);
    d.line("candidate", `M520 ${BOX_TOP}V166`, true);
    d.line("wrote", `M520 139V${BELT + 14}`, true);
    d.line("reset", `M345 ${BOX_TOP}V192H452V288H524`, true);
    d.node(170, BELT, "×");
    d.node(520, BELT, "+");
    d.node(520, 152, "×");
    d.oval(300, 152, "1 − z");
    d.gate("update", 170, "update", "σ");
    d.gate("reset", 345, "reset", "σ");
    d.gate("candidate", 520, "candidate", "tanh", 38);
    d.node(538, 288, "×");
    d.text("before-name", 16, BELT - 34, "small", "hidden state before");
    d.text("before", 16, BELT - 15, "value");
    d.text("kept", 345, BELT - 15, "value middle");
    d.text("hidden-name", 722, BELT - 34, "small end", "hidden state");
    d.text("hidden", 722, BELT - 15, "value end");
    d.text("wrote", 533, 116, "value");
    d.text("update", 181, 204, "value");
    d.text("reset", 356, 182, "value");
    d.text("candidate", 531, 204, "value");
    d.text("h before", 16, HIDDEN_BUS - 11, "small", "h before");
    d.text("x", 84, 414, "letter");
  },

  ofUnit(of, unit, t) {
    const v = { before: of.at("hidden", unit, of.before(t)) };
    for (const name of ["update", "reset", "candidate", "hidden"]) v[name] = of.at(name, unit, t);
    v.replaced = 1 - v.update;
    v.kept = v.update * v.before;
    v.wrote = v.replaced * v.candidate;
    return v;
  },

  values: (of, unit, t) => valuesOf(GRU, of, unit, t),

  update(drawing, of, unit, t) {
    const v = GRU.values(of, unit, t), limit = of.limit("hidden", unit);
    const widths = {}, words = { x: reads(t) }, number = unit === null ? plain : signed;
    for (const name of ["before", "kept", "wrote", "hidden"]) widths[name] = [v[name], limit];
    for (const name of ["update", "reset", "candidate", "replaced"]) widths[name] = [v[name], 1];
    for (const name of ["update", "reset"]) words[name] = plain(v[name]);
    for (const name of ["before", "candidate", "hidden"]) words[name] = number(v[name]);
    words.kept = `kept ${number(v.kept)}`;
    words.wrote = `wrote ${number(v.wrote)}`;
    const found = enter(of, unit, t, widths, words);
    drawing.update(widths, words);
    return `${reading(t)}, ${who(unit)} keeps ${percent(v.update)} of its hidden state ` +
      `(${number(v.before)} → ${number(v.kept)}) and writes ${number(v.wrote)}: now ${number(v.hidden)}. ` +
      `${percent(v.reset)} of the past enters the candidate.` +
      (found ? ` ${followed("update gate", found.update)}` : "");
  },
};
