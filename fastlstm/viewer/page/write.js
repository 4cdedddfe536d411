// Numbers, characters and elements.

const about = JSON.parse(document.getElementById("about").textContent);
// As Python counts them: a character outside of the first plane is one.
const characters = about.text === null ? null : Array.from(about.text);
const steps = about.steps;
let layers = [];

const $ = (id) => document.getElementById(id);
const layer = () => layers[state.layer];

function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
}

const plain = (value, digits = 2) => value.toFixed(digits);
const percent = (part) => `${Math.round(100 * part)}%`;
const counted = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

const VISIBLE = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };
const visible = (character) => VISIBLE[character] ?? character;
const reads = (t) => (characters ? `“${visible(characters[t])}”` : `step ${t}`);
const reading = (t) => (characters ? `Reading ${reads(t)}` : `At ${reads(t)}`);
const who = (unit) => (unit === null ? "the mean unit" : `unit ${unit}`);

const LABELS = { cell: "cell state", hidden: "hidden state" };
const label = (name) => LABELS[name] ?? (layer().isGate(name) ? `${name} gate` : name);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}
