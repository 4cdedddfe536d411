// What the model expects after the character under the cursor, and what came.

function drawNext() {
  if (!about.next) return ($("next").hidden = true);
  const { alphabet, likeliestTable, chanceTable, bits } = about.next;
  const t = state.at, came = t + 1 < steps ? characters[t + 1] : null;
  const rows = [];
  for (let i = 0; i < likeliestTable.columns; i++) {
    const character = letters[likeliestTable.at(t, i)], chance = chanceTable.at(t, i);
    const bar = element("span", { class: "bar" });
    bar.style.width = `${100 * chance}%`;
    rows.push(element("li", { class: character === came ? "came" : "" },
      element("b", {}, visible(character)), element("span", { class: "track" }, bar),
      element("span", { class: "chance" }, chance < 0.001 ? "<0.1%" : `${(100 * chance).toFixed(1)}%`),
      element("span", { class: "note" }, character === came ? "came" : "")));
  }
  $("likeliest").replaceChildren(...rows);
  const mean = about.next.mean === null ? "" : ` The mean of this text is ${plain(about.next.mean)} bits per character.`;
  $("surprise").textContent = came === null ? `The text ends here.${mean}`
    : `${reads(t + 1)} came: ${plain(bits[t])} bits of surprise.${mean}`;
}
