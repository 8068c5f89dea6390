const C = DATA;
const totals = C.files.reduce((sum, file) => sum.map((n, i) => n + file.counts[i]), [0, 0, 0, 0, 0]);
const instructions = C.assembly.flatMap(each => each.instructions);
const executed = instructions.filter(each => each.executed).length;
const card = (part, of, label) => h("div", { class: "card" }, h("b", {}, part === of ? "100 %" : percent(part, of)), h("span", { class: "dim" }, `${whole(part)} of ${whole(of)} ${label}`));

// A line of source, cut where conditions without one of their outcomes begin and end.
function pieces(text, number, marks) {
  const inside = marks.filter(({ place: [first, , last] }) => first <= number && number <= last).map(({ place: [first, start, last, end], ...rest }) =>
    ({ from: first === number ? start - 1 : 0, to: last === number ? end - 1 : text.length, ...rest }));
  const cuts = [...new Set([0, text.length, ...inside.flatMap(m => [m.from, m.to])])].sort((a, b) => a - b);
  return cuts.slice(1).map((to, i) => {
    const part = text.slice(cuts[i], to), here = inside.filter(m => m.from <= cuts[i] && to <= m.to);
    if (!here.length) return part;
    const why = here.map(m => `never ${m.outcome}${m.why ? ": " + m.why : ""}`).join("\n");
    return h("mark", { class: here.every(m => m.why) ? "argued" : "", title: why }, part);
  });
}

// A file or function that is drawn when it is opened.
function folded(id, title, detail, open, rows) {
  const body = h("table", { class: "code" });
  const draw = () => body.childElementCount || body.append(h("tbody", {}, rows()));
  const element = h("details", { id, ontoggle: draw }, h("summary", {}, h("b", {}, title), h("span", { class: "dim" }, detail)), h("div", { class: "panel scroll" }, body));
  if (open) { element.open = true; draw(); }
  return element;
}

const row = (style, ...cells) => h("tr", { class: style }, cells.map(cell => h("td", {}, cell)));

function source(file) {
  const missed = new Set(file.missed), chip = new Set(file.chip);
  const rows = () => file.text.map((text, index) => {
    const number = index + 1, count = file.lines[number];
    const style = missed.has(number) ? "never" : count === 0 ? "argued" : "";
    const ran = count === undefined ? "" : chip.has(number) ? (count ? "chip" : "0") : whole(count);
    return row(style, number, ran, pieces(text, number, file.marks));
  });
  const [ran, lines, taken, outcomes, argued] = file.counts;
  const open = file.missed.length > 0 || file.marks.some(mark => !mark.why);
  const detail = `${ran} of ${lines} lines, ${taken} of ${outcomes} outcomes of conditions${argued ? `, ${argued} argued` : ""}`;
  return folded(file.name, file.name, detail, open, rows);
}

function assembly(each) {
  const fine = ({ executed, ways }) => executed && (ways.length !== 2 || ways.every(Boolean));
  const rows = () => each.instructions.map(instruction => {
    const { offset, text, executed, ways } = instruction;
    const went = ways.length === 2 ? ["taken", "passed by"].filter((_, i) => ways[i]).join(", ") || "never" : ways.length ? `to ${ways[0]} places` : "";
    return row(fine(instruction) ? "" : "never", "+" + offset.toString(16), executed ? "ran" : "0", text.padEnd(44) + went);
  });
  const ran = each.instructions.filter(i => i.executed).length;
  return folded(null, `${each.function} on ${each.core}`, `${each.file}:${each.line}, ${ran} of ${each.instructions.length} instructions`, !each.instructions.every(fine), rows);
}

show(
  h("h1", {}, "Coverage of the C kernels"),
  h("p", { class: "dim" }, `${whole(C.cases)} cases of each operator at ${C.places.join("; ")}.`),
  h("div", { class: "cards" }, card(totals[0], totals[1], "lines"), card(totals[2], totals[3], "outcomes of conditions"), card(executed, instructions.length, "instructions of assembly")),
  C.missed.length ? [h("h2", {}, "Missed"), h("ul", { class: "missed" }, C.missed.map(line => h("li", {}, line)))] : h("p", {}, "Nothing in reach was missed."),
  h("h2", {}, "Sources"),
  h("p", { class: "dim" }, "The second column counts executions on the host; “chip” is code that only cores with the DSP extension have, and ran there. Grey is argued to be out of reach: the reason is shown at the condition."),
  C.files.map(source),
  h("h2", {}, "Assembly"),
  C.assembly.map(assembly),
);
