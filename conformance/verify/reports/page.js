const R = DATA.report;
const WORDS = { "passed": ["✓", "passed"], "failed": ["✗", "failed"], "not-run": ["–", "not run"] };
const RANK = { "failed": 0, "not-run": 1, "passed": 2 };
const COLOURS = { "code": "--blue", "constants": "--teal", "arena": "--orange", "stack": "--purple", "static data": "--red" };
const FURTHER = ["--blue", "--teal", "--orange", "--purple", "--red", "--grey"];
const number = value => value === null ? null : Number(value);
const decibels = value => Number.isFinite(value) ? fixed(value, 1) : value > 0 ? "exact" : "–";
const hex = n => "0x" + n.toString(16).toUpperCase().padStart(8, "0");
const sum = list => list.reduce((total, n) => total + n, 0);
const mark = outcome => h("span", { class: `mark ${outcome}` }, WORDS[outcome].join(" "));
const breakable = name => name.split(/(?<=[/_.])/).flatMap((part, index) => index ? [h("wbr"), part] : [part]);
const unique = list => [...new Set(list)];

function header() {
  const failed = R.checks.filter(check => check.outcome === "failed");
  return [
    h("h1", {}, R.model),
    h("p", { class: "dim" }, `Verified ${R.started.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, " UTC")}, in ${fixed(R.seconds, 1)} s.`),
    h("section", { class: `verdict ${R.verdict}`, "aria-label": "Verdict" },
      h("p", {}, h("i", { "aria-hidden": "true" }, h("span", {}, WORDS[R.verdict][0])), h("span", {}, DATA.headline)),
      failed.length ? h("ul", {}, failed.slice(0, 5).map(check => h("li", {}, h("b", {}, check.name), ` at ${check.place}: ${check.detail}`)),
        failed.length > 5 ? h("li", {}, `and ${failed.length - 5} more, below`) : null) : null),
  ];
}

function divergences() {
  if (!R.divergences.length) return [];
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return [h("h2", {}, "First divergence"), R.divergences.map(d => h("div", { class: "panel divergence" },
    h("h3", { style: { marginTop: 0 } }, `${d.node} at ${d.place}`),
    h("p", { class: "dim" }, `Step ${d.step}, ${d.operator}, sample ${d.sample}, tensor ${d.tensor}.`),
    h("dl", { class: "facts" },
      fact("element", `[${d.element.join(", ")}]`), fact("golden model", d.expected), fact("image", h("span", { class: "failed" }, d.found)),
      d.accumulator === null ? null : fact("accumulator before requantisation", whole(d.accumulator))),
    d.contributions.length ? [h("p", { class: "dim" }, "What feeds it, largest contribution first:"), h("pre", { tabindex: 0 }, d.contributions.join("\n"))] : null,
    d.reproducer ? h("p", {}, "Reproducer: ", h("a", { href: "./" + encodeURIComponent(d.reproducer.replace(/\p{Surrogate}/gu, "\ufffd")), style: { color: "inherit" } }, h("code", {}, d.reproducer))) : null))];
}

// Checks by places: the whole at one look.
function matrix() {
  const names = unique(R.checks.map(check => check.name)), places = unique(R.checks.map(check => check.place));
  if (places.length < 2) return [];
  const found = new Map();
  for (const check of R.checks) {
    const key = JSON.stringify([check.name, check.place]), other = found.get(key);
    if (!other || RANK[check.outcome] < RANK[other.outcome]) found.set(key, check);
  }
  const cell = check => check
    ? h("td", { class: check.outcome, title: check.detail }, h("span", { "aria-hidden": "true" }, WORDS[check.outcome][0]), h("span", { class: "hidden" }, WORDS[check.outcome][1]))
    : h("td", {}, h("span", { class: "hidden" }, "does not apply"));
  return [h("h2", {}, "Overview"), h("div", { class: "panel scroll overview", role: "region", "aria-label": "Overview", tabindex: 0 },
    h("table", { class: "matrix", "aria-label": "Overview" },
      h("thead", {}, h("tr", {}, h("td", {}), places.map(place => h("th", { scope: "col" }, place)))),
      h("tbody", {}, names.map(name => h("tr", {}, h("th", { scope: "row", title: DATA.rules[name].title }, name),
        places.map(place => cell(found.get(JSON.stringify([name, place]))))))))),
    h("p", { class: "dim" }, "✓ passed, ✗ failed, – not run; an empty cell does not apply there.")];
}

function checks() {
  if (!R.checks.length) return [];
  const rows = R.checks.map((check, index) => ({ ...check, index, figure: number(check.figure), limit: number(check.limit) }));
  const share = check => check.figure !== null && check.limit > 0 ? check.figure / check.limit : null;
  const gauge = check => share(check) === null ? null : h("div", { class: "bar", "aria-hidden": "true" },
    h("i", { class: check.outcome === "failed" ? "meter failed" : "meter", style: { width: Math.min(100, Math.max(0, 100 * share(check))) + "%" } }));
  return [h("h2", {}, "Checks"), table([
    { title: "outcome", kind: "text", value: c => RANK[c.outcome], show: c => mark(c.outcome) },
    { title: "check", kind: "text", value: c => c.name, show: c => h("span", { title: [DATA.rules[c.name].title, DATA.rules[c.name].why].filter(Boolean).join(". ") }, c.name) },
    { title: "place", kind: "text", value: c => c.place, show: c => c.place },
    { title: "measured", kind: "gauge", value: c => share(c) ?? c.figure, show: c => h("div", {}, DATA.measured[c.index] || "–", gauge(c)) },
    { title: "finding", kind: "finding text", value: c => c.detail, show: c => c.detail },
    { title: "seconds", value: c => c.seconds, show: c => fixed(c.seconds, 2) },
  ], rows, { label: "Checks", style: "checks" })];
}

function memory(build) {
  if (!build.memory.length) return [];
  return [h("h3", {}, "Memory"), h("div", { class: "panel" }, build.memory.map(region => {
    const used = sum(region.parts.map(part => part.bytes)), whole_ = Math.max(used, region.size, 1), over = used - region.size;
    let at = 0;
    const parts = region.parts.map((part, index) => {
      const colour = `var(${COLOURS[part.name] || FURTHER[index % FURTHER.length]})`, x = 100 * at / whole_;
      at += part.bytes;
      return { part, colour, shape: svg("rect", { x: x + "%", y: 0, width: Math.max(100 * part.bytes / whole_, part.bytes ? 0.15 : 0) + "%", height: "100%" },
        svg("title", {}, `${part.name}: ${whole(part.bytes)} bytes`)) };
    });
    parts.forEach(({ colour, shape }) => { shape.style.fill = colour; });
    const label = `${region.name}: ${whole(used)} of ${whole(region.size)} bytes used`;
    return h("div", { class: "region" },
      h("div", { class: "line" }, h("b", {}, region.name), h("span", { class: over > 0 ? "failed" : "" },
        `${whole(used)} of ${whole(region.size)} bytes, ${percent(used, region.size)}; ` + (over > 0 ? `${whole(over)} too many` : `${whole(-over)} free`))),
      svg("svg", { role: "img", "aria-label": label }, parts.map(({ shape }) => shape),
        over > 0 ? svg("line", { class: "limit", x1: 100 * region.size / whole_ + "%", x2: 100 * region.size / whole_ + "%", y1: 0, y2: "100%" }) : null),
      h("div", { class: "line ends" }, h("span", {}, hex(region.origin)), h("span", {}, over > 0 ? "dashed: end of the region" : hex(region.origin + region.size - 1))),
      h("div", { class: "legend" }, parts.map(({ part, colour }) => h("span", {}, h("i", { style: { background: colour } }), `${part.name} ${whole(part.bytes)} (${percent(part.bytes, region.size)})`))));
  }))];
}

// The picture comes from outside this page: only its shapes and words are taken, and its style stays within it.
const SHAPES = ["svg", "style", "g", "title", "text", "tspan", "rect", "path", "line"];
const PROPERTIES = ["class", "viewBox", "width", "height", "x", "y", "x1", "x2", "y1", "y2", "d", "rx"];
function drawn(source) {
  const picture = svg(source.tagName, Object.fromEntries(PROPERTIES.filter(name => source.hasAttribute(name)).map(name => [name, source.getAttribute(name)])));
  for (const child of source.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) picture.append(child.data);
    else if (SHAPES.includes(child.tagName)) picture.append(drawn(child));
  }
  return picture;
}
function arena(build) {
  if (!build.arena_svg) return [];
  const source = new DOMParser().parseFromString(build.arena_svg, "image/svg+xml").documentElement;
  if (source.tagName !== "svg") return [];
  const frame = h("div", { class: "arena", role: "img", "aria-label": "Buffers in the arena over the steps of the program" });
  frame.attachShadow({ mode: "open" }).append(drawn(source), h("style", {}, "svg { width: 100%; height: auto; }"));
  return [h("h3", {}, "Arena over time"), h("div", { class: "panel scroll", role: "region", "aria-label": "Arena over time", tabindex: 0 }, frame)];
}

// One column for each layer, in the order of execution.
function columns(rows, value, words, kind, label) {
  const finite = rows.map(value).filter(Number.isFinite);
  const most = Math.max(...finite, 0), least = Math.min(...finite, 0), span = most - least || 1, base = 100 * most / span;
  const bars = rows.map((row, index) => {
    const n = value(row);
    if (n === null || Number.isNaN(n)) return null;
    const end = 100 * (most - Math.min(Math.max(n, least), most)) / span;
    return svg("rect", { class: kind === "cycles" && row.mismatches ? "differs" : "", x: index + 0.06, width: 0.88, y: Math.min(base, end), height: Math.max(Math.abs(base - end), 0.6) },
      svg("title", {}, `${row.index} ${row.node} (${row.operator}): ${words(n)}` + (row.mismatches ? `; ${row.mismatches} mismatches` : "")));
  });
  return h("div", { class: `chart-row ${kind}` }, h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, short(most)), h("span", {}, short(least))),
    svg("svg", { viewBox: `0 0 ${rows.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label }, bars),
    h("div", { class: "steps", "aria-hidden": "true" }, h("span", {}, `step ${rows[0].index}`), h("span", {}, rows[rows.length - 1].index)));
}

function layers(build) {
  const rows = build.layers.map(layer => ({ ...layer, cycles: number(layer.cycles), sqnr_db: number(layer.sqnr_db) }));
  if (!rows.length) return [];
  const counted = rows.filter(row => row.cycles !== null), compared = rows.filter(row => row.sqnr_db !== null);
  const total = sum(counted.map(row => row.cycles)), macs = sum(rows.map(row => row.macs)), longest = Math.max(...counted.map(row => row.cycles), 1);
  const slow = [...counted].sort((a, b) => b.cycles - a.cycles)[0], poor = [...compared].sort((a, b) => a.sqnr_db - b.sqnr_db)[0];
  const differ = rows.some(row => row.mismatches);
  const charts = [
    ...(counted.length ? [h("h4", {}, `Cycles: ${short(total)} in all, most in ${slow.node} (${percent(slow.cycles, total)})`),
      columns(rows, row => row.cycles, n => `${whole(n)} cycles`, "cycles", `Cycles of each layer, ${whole(total)} in all`),
      differ ? h("p", { class: "dim" }, "Red: layers with samples that differ from the golden model.") : null] : []),
    ...(compared.length ? [h("h4", {}, `Signal to quantisation noise against the float model, dB; lower is worse: ${decibels(poor.sqnr_db)} at ${poor.node}`),
      columns(rows, row => row.sqnr_db, n => `${decibels(n)} dB`, "sqnr", "Signal to quantisation noise of each layer, decibels")] : []),
  ];
  const perMac = row => row.macs && row.cycles !== null ? row.cycles / row.macs : null;
  const known = [
    { title: "#", value: r => r.index, show: r => r.index },
    { title: "layer", kind: "text name", value: r => r.node, show: r => h("span", {}, breakable(r.node)), foot: "all" },
    { title: "operator", kind: "text", value: r => r.operator, show: r => r.operator },
    { title: "shape", kind: "text", value: r => r.shape.reduce((n, m) => n * m, 1), show: r => r.shape.join("×") },
    { title: "encoding", kind: "text", value: r => r.encoding || null, show: r => r.encoding || "–" },
    { title: "bytes", value: r => r.constant_bytes, show: r => r.constant_bytes ? whole(r.constant_bytes) : "–", foot: whole(sum(rows.map(row => row.constant_bytes))) },
    { title: "MACs", value: r => r.macs, show: r => r.macs ? whole(r.macs) : "–", foot: whole(macs) },
    ...(counted.length ? [
      { title: "cycles", value: r => r.cycles, show: r => r.cycles === null ? "–" : whole(r.cycles), foot: whole(total) },
      { title: "share", kind: "chart", value: r => r.cycles, show: r => r.cycles === null ? "" : h("div", { class: "bar", role: "img", "aria-label": percent(r.cycles, total) }, h("i", { class: "meter", style: { width: 100 * r.cycles / longest + "%" } })) },
      { title: "cycles a MAC", value: perMac, show: r => perMac(r) === null ? "–" : fixed(perMac(r), 2), foot: macs ? fixed(total / macs, 2) : "–" },
    ] : []),
    { title: "mismatches", value: r => r.mismatches, show: r => r.mismatches ? h("b", { class: "failed" }, whole(r.mismatches)) : "0" },
    ...(compared.length ? [{ title: "SQNR, dB", value: r => r.sqnr_db, show: r => r.sqnr_db === null ? "–" : decibels(r.sqnr_db) }] : []),
  ];
  return [h("h3", {}, "Layers"), charts.length ? h("div", { class: "panel columns" }, charts) : null,
    h("div", { style: { height: "12px" } }), table(known, rows, { label: "Layers", style: "layers", footer: known.map(column => column.foot || "") })];
}

function build(b) {
  const made = [b.target, b.core, [b.compiler, b.compiler_version, b.opt].filter(Boolean).join(" ") || "an image that was given"].filter(Boolean).join(", ");
  return [h("p", { class: "dim" }, made + ".", b.elf_sha256 ? [" ELF SHA-256 ", h("code", {}, b.elf_sha256)] : null), memory(b), arena(b), layers(b)];
}

// The images: one shown at a time, chosen by click or arrow keys.
function builds() {
  if (!R.builds.length) return [];
  const panel = h("div", { role: "tabpanel", id: "build", tabindex: 0 });
  const worst = place => R.checks.filter(check => check.place === place).map(check => check.outcome).sort((a, b) => RANK[a] - RANK[b])[0];
  const tabs = R.builds.map((b, index) => h("button", { role: "tab", id: `tab-${index}`, "aria-controls": "build",
    onclick: () => choose(index), onkeydown: event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { const next = (index + step + tabs.length) % tabs.length; choose(next); tabs[next].focus(); }
    } }, worst(b.place) ? [h("span", { class: worst(b.place), "aria-hidden": "true" }, WORDS[worst(b.place)][0] + " ")] : null, b.place));
  function choose(index) {
    tabs.forEach((tab, i) => { tab.setAttribute("aria-selected", String(i === index)); tab.tabIndex = i === index ? 0 : -1; });
    panel.setAttribute("aria-labelledby", `tab-${index}`);
    panel.replaceChildren(...build(R.builds[index]).flat(3).filter(Boolean));
  }
  const failed = R.builds.findIndex(b => worst(b.place) === "failed");
  choose(Math.max(failed, 0));
  return [h("h2", {}, "Images"), h("div", { class: "tabs", role: "tablist", "aria-label": "Images" }, tabs), panel];
}

function origin() {
  const list = (label, rows) => h("table", { class: "plain", "aria-label": label }, h("tbody", {},
    rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, breakable(name)), h("td", {}, value)))));
  const panel = (label, ...content) => h("div", { class: "panel", style: { marginBottom: "12px" } }, h("h3", { style: { marginTop: 0 } }, label), content);
  const hash = value => h("code", {}, value);
  const compilers = new Map(R.builds.filter(b => b.compiler).map(b => [b.compiler, b.compiler_version]));
  const sources = Object.entries(R.sources_sha256).map(([name, value]) => [name, hash(value)]);
  return [h("h2", {}, "Made with"),
    panel("Tools", list("Tools", [...Object.entries(R.versions), ...[...compilers].filter(([name]) => !(name in R.versions))])),
    panel("SHA-256", list("SHA-256", [[R.model, hash(R.model_sha256)], ...R.builds.filter(b => b.elf_sha256).map(b => [`ELF, ${b.place}`, hash(b.elf_sha256)])]),
      sources.length ? h("details", {}, h("summary", {}, `Generated C, ${sources.length} files`), list("SHA-256 of the generated C", sources)) : null),
    panel("Run again", h("pre", { class: "command" }, R.command))];
}

show(header(), divergences(), matrix(), checks(), builds(), origin());
