// The plain RNN's cell: one sum, one function.

const RNN = {
  size: [74, 350],

  draw(d, of) {
    d.bus(`M16 ${HIDDEN_BUS}H378`);
    d.bus(`M70 410V${INPUT_BUS}H342`);
    d.line("hidden", `M360 ${BOX_TOP}V130H722`, true);
    d.gate("hidden", 360, "state", named(of.functions[1]));
    d.text("h before", 16, HIDDEN_BUS - 30, "small", "hidden state before");
    d.text("before", 16, HIDDEN_BUS - 11, "value");
    d.text("hidden-name", 722, 96, "small end", "hidden state");
    d.text("hidden", 722, 115, "value end");
    d.text("x", 84, 414, "letter");
  },

  ofUnit: (of, unit, t) => ({
    before: of.at("hidden", unit, of.before(t)), hidden: of.at("hidden", unit, t) }),

  values: (of, unit, t) => valuesOf(RNN, of, unit, t),

  update(drawing, of, unit, t) {
    const v = RNN.values(of, unit, t), number = unit === null ? plain : signed;
    const widths = { hidden: [v.hidden, of.limit("hidden", unit)] };
    const words = { x: reads(t), before: number(v.before), hidden: number(v.hidden) };
    const found = enter(of, unit, t, widths, words);
    drawing.update(widths, words);
    return `${reading(t)}, ${who(unit)} goes from ${number(v.before)} to ${number(v.hidden)}. Nothing ` +
      "is kept as it was: the whole state goes through the matrix and the function at every step." +
      (found ? ` ${followed("state", found.hidden)}` : "");
  },
};
