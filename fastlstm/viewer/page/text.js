// The text: each character coloured by a value, underlined by its surprise.

const LEVELS = 12;
const SURPRISES = [2, 4, 7]; // bits, from which a character is underlined, and how much
const spans = [];

function fillText() {
  const rules = [];
  for (const kind of ["positive", "negative", "gate"])
    for (let level = 1; level <= LEVELS; level++)
      rules.push(`.${kind}${level}{background:color-mix(in oklab,var(--${kind}-fill) ` +
        `${Math.round((100 * level) / LEVELS)}%,var(--paper))}`);
  document.head.append(element("style", {}, rules.join("")));
  if (!characters) return $("frame").remove();
  const box = document.createDocumentFragment();
  characters.forEach((character, t) => {
    // A space stays one, so that lines break between words.
    const blank = character !== " " && character !== visible(character);
    const span = element("span", {}, blank ? visible(character) : character, character === "\n" ? character : "");
    if (blank) span.dataset.blank = "";
    const bits = t ? about.next.bits[t - 1] : 0;
    const surprise = SURPRISES.filter((least) => bits >= least).length;
    if (surprise) span.dataset.surprise = surprise;
    span.dataset.t = t;
    spans.push(span);
    box.append(span);
  });
  $("text").append(box);
  $("text").addEventListener("pointermove", pointed);
  $("text").addEventListener("pointerdown", pressed);
  $("text").addEventListener("pointerleave", () => set({ at: state.pin }));
  $("text").addEventListener("keydown", (event) => typed(event, lineAway));
}

function level(name, value, limit) {
  const size = Math.round((Math.abs(value) / limit) * LEVELS);
  if (!size) return "";
  const kind = layer().isGate(name) || state.unit === null ? "gate" : value < 0 ? "negative" : "positive";
  return kind + Math.min(size, LEVELS);
}

function colourText() {
  const values = layer().series(state.show, state.unit);
  const limit = layer().limit(state.show, state.unit);
  spans.forEach((span, t) => { span.className = level(state.show, values[t], limit); });
  markText();
}

let marked = [];
function markText() {
  for (const span of marked) span.classList.remove("at", "selected");
  marked = [];
  const mark = (t, name) => { spans[t].classList.add(name); marked.push(spans[t]); };
  if (!spans.length) return;
  mark(state.at, "at");
  if (state.selection)
    for (let t = state.selection[0]; t <= state.selection[1]; t++) mark(t, "selected");
}

// --- the pointer: it shows as it moves, a click stays, a drag selects

let dragging = false;
const stepOf = (event) => {
  const under = document.elementFromPoint(event.clientX, event.clientY);
  const t = under?.dataset?.t;
  return t === undefined ? null : +t;
};

function pointed(event) {
  const t = stepOf(event);
  if (t === null) return;
  dragTo(t, event);
}

function pressed(event) {
  const t = stepOf(event);
  if (t === null || event.button) return;
  if (event.shiftKey) return selectFrom(state.pin, t);
  beginDrag(t);
}

function beginDrag(t) {
  dragging = true;
  set({ at: t, pin: t, anchor: t, selection: null });
}

addEventListener("pointerup", () => { dragging = false; });

function dragTo(t, event) {
  if (!dragging || !(event.buttons & 1)) set({ at: t });
  else if (t !== state.anchor || state.selection) selectFrom(state.anchor, t);
}

function selectFrom(from, to) {
  set({ at: to, pin: to, anchor: from, selection: [Math.min(from, to), Math.max(from, to)] });
}

// --- keys

function lineAway(direction) {
  const here = spans[state.pin].getBoundingClientRect();
  for (let t = state.pin + direction; t >= 0 && t < steps; t += direction) {
    const there = spans[t].getBoundingClientRect();
    const beyond = direction > 0 ? there.left >= here.left - 1 : there.left <= here.left + 1;
    if (Math.abs(there.top - here.top) > here.height / 2 && beyond) return t;
  }
  return direction > 0 ? steps - 1 : 0;
}

function typed(event, away) {
  if (event.ctrlKey || event.altKey || event.metaKey) return; // the browser's own
  const moves = {
    ArrowLeft: () => state.pin - 1, ArrowRight: () => state.pin + 1,
    ArrowUp: () => away(-1), ArrowDown: () => away(1),
    Home: () => 0, End: () => steps - 1,
  };
  if (event.key === "Escape") set({ selection: null });
  else if (event.key === "PageUp") changeUnit(-1);
  else if (event.key === "PageDown") changeUnit(1);
  else if (moves[event.key]) {
    const t = Math.max(0, Math.min(steps - 1, moves[event.key]()));
    if (event.shiftKey) selectFrom(state.selection ? state.anchor : state.pin, t);
    else set({ at: t, pin: t, selection: null });
    showInText(t);
  } else return;
  event.preventDefault();
}

// Scrolls the text, not the page.
function showInText(t) {
  const box = $("text"), span = spans[t];
  if (!span) return;
  const above = span.offsetTop - box.scrollTop;
  if (above < 20 || above > box.clientHeight - 40) box.scrollTop = span.offsetTop - box.clientHeight / 2;
}

function changeUnit(by) {
  const units = layer().units;
  set({ unit: ((state.unit ?? -by) + by + units) % units });
}
