const P = DATA;
const KINDS = ["issuing", ...P.causes];
const ROW = 24;

// Counts and their words.
const sum = list => list.reduce((total, c) => {
  for (const key of Object.keys(total)) total[key] += c[key];
  return total;
}, { instructions: 0, cycles: 0, dependency: 0, branch: 0, fetch: 0, data: 0 });
const stalls = c => P.causes.reduce((total, cause) => total + c[cause], 0);
const part = (c, kind) => kind === "issuing" ? c.cycles - stalls(c) : c[kind];
const ms = cycles => 1000 * cycles / P.clock_hz;
const mJ = cycles => P.milliwatts === null ? null : P.milliwatts * ms(cycles) / 1000;
const total = sum(P.layers.map(layer => layer.counts));
const place = code => `${code.function}+0x${code.offset.toString(16)}`;
const macs = P.layers.reduce((n, layer) => n + layer.macs, 0);

function bar(counts, of, attributes) {
  const parts = KINDS.map(kind => h("i", { class: kind, style: { width: 100 * part(counts, kind) / of + "%" } }));
  const label = KINDS.map(kind => `${kind} ${whole(part(counts, kind))} (${percent(part(counts, kind), counts.cycles)})`).join("\n");
  return h("div", { class: "bar", role: "img", title: label, "aria-label": label, ...attributes }, parts);
}

function change(now, before) {
  const sign = now < before ? "−" : now > before ? "+" : "";
  const relative = before ? ` (${sign}${fixed(100 * Math.abs(now / before - 1), 1)} %)` : "";
  return h("span", { class: now < before ? "better" : now > before ? "worse" : "" }, sign + short(Math.abs(now - before)) + relative);
}

function figures(longest) {
  const columns = [
    ["MACs", r => r.macs, r => r.macs ? short(r.macs) : "–"],
    ["instructions", r => r.counts.instructions, r => whole(r.counts.instructions)],
    ["cycles", r => r.counts.cycles, r => whole(r.counts.cycles)],
    ["stalls", r => r.counts.cycles ? stalls(r.counts) / r.counts.cycles : 0, r => percent(stalls(r.counts), r.counts.cycles)],
    ["cycles a MAC", r => r.macs ? r.counts.cycles / r.macs : 0, r => r.macs ? fixed(r.counts.cycles / r.macs, 2) : "–"],
    ["ms", r => r.counts.cycles, r => fixed(ms(r.counts.cycles), 3)],
    ["mJ", r => r.counts.cycles, r => P.milliwatts === null ? "–" : fixed(mJ(r.counts.cycles), 3)],
    ["share", r => r.counts.cycles, r => percent(r.counts.cycles, total.cycles)],
  ].filter(([title]) => title !== "mJ" || P.milliwatts !== null).map(([title, value, show]) => ({ title, value, show }));
  columns.splice(3, 0, { title: "issuing and stalls", kind: "chart", value: r => r.counts.cycles, show: r => bar(r.counts, longest) });
  return columns;
}

function header() {
  const cards = [
    [P.estimate.time, "a sample"],
    [short(total.cycles), "cycles"],
    [short(total.instructions), `instructions, ${fixed(total.instructions / total.cycles, 2)} a cycle`],
    [fixed(total.cycles / macs, 2), `cycles a MAC, ${short(macs)} MACs`],
    ...(P.milliwatts === null ? [] : [[fixed(mJ(total.cycles), 2) + " mJ", `at ${fixed(P.milliwatts, 0)} mW`]]),
    [short(P.arena_bytes + P.stack_bytes), `bytes of RAM: arena ${whole(P.arena_bytes)}, stack ${whole(P.stack_bytes)}`],
  ];
  if (!macs) cards.splice(3, 1);
  return [
    h("h1", {}, P.model),
    h("p", { class: "dim" }, `${P.description}. ${P.clock_hz / 1e6} MHz, ${P.timing} timing. ${P.built_by}, ${P.opt}.`),
    h("div", { class: "cards" }, cards.map(([value, label]) => h("div", { class: "card" }, h("b", {}, value), h("span", { class: "dim" }, label)))),
    h("p", { class: "dim", style: { marginBottom: "14px" } }, P.estimate.note),
    h("div", { class: "panel" }, bar(total, total.cycles, { class: "bar large" }),
      h("div", { class: "legend" }, KINDS.map(kind => h("span", {}, h("i", { class: kind }), `${kind} ${percent(part(total, kind), total.cycles)}`)))),
  ];
}

function comparison() {
  const C = P.comparison;
  if (!C) return [];
  return [
    h("h2", {}, "Compared with before"),
    C.warnings.map(warning => h("p", { class: "warning" }, warning)),
    h("p", {}, "cycles: ", whole(C.total.cycles), " → ", whole(total.cycles), ", ", change(total.cycles, C.total.cycles)),
    h("p", {}, "instructions: ", whole(C.total.instructions), " → ", whole(total.instructions), ", ", change(total.instructions, C.total.instructions)),
    C.gone.length ? h("p", {}, "gone: ", C.gone.map(layer => `${layer.name} (${layer.operator}, ${whole(layer.counts.cycles)} cycles)`).join(", ")) : null,
  ];
}

function layers() {
  const longest = Math.max(...P.layers.map(layer => layer.counts.cycles));
  const columns = [
    { title: "#", value: r => r.index, show: r => r.index },
    { title: "layer", kind: "text name", value: r => r.name, show: r => r.name },
    { title: "operator", kind: "text", value: r => r.operator, show: r => r.operator },
    ...figures(longest),
  ];
  if (P.samples > 1) columns.push({ title: "spread", value: r => r.most - r.fewest, show: r => r.most > r.fewest ? `${short(r.fewest)} to ${short(r.most)}` : "none" });
  let sorted = 0;
  if (P.comparison) {
    const before = r => P.comparison.before[r.index];
    const effect = r => r.counts.cycles - (before(r) ? before(r).counts.cycles : 0);
    sorted = columns.findIndex(column => column.title === "cycles") + 2;
    columns.splice(sorted - 1, 0,
      { title: "before", value: r => before(r) ? before(r).counts.cycles : 0, show: r => before(r) ? whole(before(r).counts.cycles) : "new" },
      { title: "change", value: r => Math.abs(effect(r)), show: r => change(r.counts.cycles, r.counts.cycles - effect(r)) });
  }
  const sums = { macs, counts: total };
  const footer = columns.map(column => figures(1).some(f => f.title === column.title && !f.kind) ? column.show(sums) : "");
  footer[1] = "all";
  return [h("h2", {}, "Layers"), table(columns, P.layers, { label: "Layers", footer, sorted, down: sorted > 0 })];
}

function grouped(list, key) {
  const groups = new Map();
  for (const entry of list) groups.set(key(entry), [...(groups.get(key(entry)) || []), entry]);
  return [...groups];
}

function operators() {
  const rows = grouped(P.layers, layer => layer.operator).map(([operator, list]) => ({
    operator, layers: list.length, macs: list.reduce((n, layer) => n + layer.macs, 0), counts: sum(list.map(layer => layer.counts)),
  }));
  const columns = [
    { title: "operator", kind: "text", value: r => r.operator, show: r => r.operator },
    { title: "layers", value: r => r.layers, show: r => r.layers },
    ...figures(Math.max(...rows.map(row => row.counts.cycles))),
  ];
  const cycles = columns.findIndex(column => column.title === "cycles");
  return [h("h2", {}, "Operators"), table(columns, rows, { label: "Operators", sorted: cycles, down: true })];
}

// Model, operator, layer, C function, block of instructions: each row inside the one above it.
function tree() {
  const node = (name, kind, counts, children, more) => ({ name, kind, counts, children: children.sort((a, b) => b.counts.cycles - a.counts.cycles), ...more });
  const block = entry => {
    const code = P.code[entry.block];
    return node(code.source || place(code), "block", entry.counts, [], { code, executions: entry.executions });
  };
  const layer = l => node(l.name, "layer", l.counts, grouped(l.blocks, entry => P.code[entry.block].function).map(
    ([name, entries]) => node(name, "function", sum(entries.map(entry => entry.counts)), entries.map(block))), { macs: l.macs });
  return node(P.model, "model", total, grouped(P.layers, l => l.operator).map(
    ([name, list]) => node(name, "operator", sum(list.map(l => l.counts)), list.map(layer), { macs: list.reduce((n, l) => n + l.macs, 0) })), { macs });
}

function flame() {
  const root = tree();
  const drawing = h("div", { class: "flame", style: { height: 5 * ROW + "px" } });
  const detail = h("div", { class: "detail" });
  let path = [root], pinned = null;

  function describe(nodes) {
    const node = nodes[nodes.length - 1], c = node.counts;
    const lines = [
      `${whole(c.cycles)} cycles, ${percent(c.cycles, total.cycles)} of the model, ${fixed(ms(c.cycles), 3)} ms`,
      `${whole(c.instructions)} instructions`,
      node.macs ? `${fixed(c.cycles / node.macs, 2)} cycles a MAC` : null,
      node.executions ? `executed ${whole(node.executions)} times, ${fixed(c.cycles / node.executions, 2)} cycles each` : null,
      ...P.causes.filter(cause => c[cause]).map(cause => `${cause} stalls ${percent(c[cause], c.cycles)}`),
    ].filter(Boolean);
    const code = node.code ? [node] : node.kind === "function" ? node.children : [];
    const listing = code.slice(0, 8).map(n => `${place(n.code)} ${n.code.source}: ${percent(n.counts.cycles, total.cycles)}, ${whole(n.executions)} times\n`
      + n.code.instructions.map(text => `    ${text}\n`).join("")).join("\n");
    detail.replaceChildren(
      h("div", {}, h("b", {}, nodes.map(n => n.name).join(" › ")), bar(c, c.cycles), lines.map(line => h("p", {}, line))),
      h("pre", { tabindex: 0 }, listing || "Point at a C function or a block to see its instructions; click to zoom in, click above to zoom out."));
  }

  function heat(c) {
    const stalled = c.cycles ? stalls(c) / c.cycles : 0, half = stalled < 0.3;
    const share = Math.min(100, 100 * (half ? stalled : stalled - 0.3) / 0.3);
    return `color-mix(in oklab, var(${half ? "--warm" : "--hot"}) ${share}%, var(${half ? "--cool" : "--warm"}))`;
  }

  function draw() {
    const cells = [];
    const base = path[path.length - 1];
    const add = (node, nodes, depth, left, width) => {
      if (width < 0.08) return;
      const label = `${node.name}: ${whole(node.counts.cycles)} cycles, ${percent(node.counts.cycles, total.cycles)}, ${percent(stalls(node.counts), node.counts.cycles)} stalled`;
      cells.push(h("button", {
        tabindex: 0, title: label, "aria-label": label,
        style: { left: left + "%", width: width + "%", top: depth * ROW + "px", background: heat(node.counts) },
        onmouseenter: () => describe(nodes), onfocus: () => describe(nodes), onmouseleave: () => describe(pinned || path),
        onclick: () => { pinned = nodes; path = node.children.length ? nodes : nodes.slice(0, -1); draw(); describe(nodes); },
      }, width > 2 ? node.name : ""));
      if (depth < path.length - 1) return;
      let at = left;
      for (const child of node.children) {
        const share = base.counts.cycles ? 100 * child.counts.cycles / base.counts.cycles : 0;
        add(child, [...nodes, child], depth + 1, at, share);
        at += share;
      }
    };
    path.forEach((node, depth) => add(node, path.slice(0, depth + 1), depth, 0, 100));
    drawing.replaceChildren(...cells);
  }

  draw();
  describe(path);
  return [h("h2", {}, "Model, operators, layers, C functions, blocks"),
    h("div", { class: "panel" }, drawing, h("p", { class: "dim scale" }, "Width: cycles. Colour: cycles stalled, none ", h("i"), " 60 % and more."), detail)];
}

function footer() {
  const seed = P.seed === null ? "" : `, seed ${P.seed}`;
  const spread = P.samples > 1 ? ` Cycles of a sample: ${whole(P.fewest)} to ${whole(P.most)}; figures are means.` : "";
  return h("footer", {},
    h("p", {}, `${P.samples} ${P.samples > 1 ? "samples" : "sample"} of ${P.data}${seed}; every tensor equals the golden model's, byte for byte.${spread}`),
    h("p", {}, Object.entries(P.versions).map(([name, number]) => `${name} ${number}`).join(", "), `. Model SHA-256 ${P.model_hash}.`));
}

show(header(), comparison(), flame(), layers(), operators(), footer());
