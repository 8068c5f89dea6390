const PATHS = DATA.paths, CHOSEN = DATA.chosen;
const finished = PATHS.filter(trial => trial.state === "finished");
const kb = bytes => fixed(bytes / 1024, 1) + " KB";
const share = value => value === null ? "–" : fixed(100 * value, 2) + " %";
const ms = value => value === null ? "–" : fixed(value, 1) + " ms";
const time = seconds => seconds === null ? "–" : seconds < 120 ? fixed(seconds, 1) + " s" : fixed(seconds / 60, 1) + " min";
const dims = shape => shape.join(" × ");

// What a search under way is doing. The page was written when a trial began or ended, and fetches the next one.
function state() {
  const { stage, done, wanted, stopped, written, ends } = DATA.progress;
  const clock = seconds => new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const what = `${stage === "paths" ? "SparseNAS" : "SuperNAS"}: ${whole(done)} of ${whole(wanted)} trials are done`;
  if (stopped) return h("p", { class: "state stopped" }, h("b", {}, "Stopped"), ` ${clock(written)}. ${what}. The same command goes on.`);
  setTimeout(() => location.reload(), 15000);
  return h("p", { class: "state running" }, h("b", {}, "Running"), ` ${what}` +
    (done === wanted ? "; what is next begins." : ends === null ? "; how long the rest takes is known after the first." : `, the rest by ${clock(ends)} at this speed.`) + ` As of ${clock(written)}.`);
}

function cards() {
  const chosen = PATHS.find(trial => trial.number === CHOSEN);
  if (!chosen) return null;
  const resources = DATA.model ? DATA.model.resources : chosen.resources;
  const values = [
    [share(chosen.accuracy), `accuracy of the ${DATA.model ? "chosen" : "best"} model, int8, held-out images`],
    ...(DATA.model ? [[share(DATA.model.test_accuracy), `on ${whole(DATA.model.test_images)} test images`]] : []),
    [kb(resources.flash_bytes), `flash, of ${kb(DATA.limits.flash_bytes)}`],
    [kb(resources.ram_bytes), `RAM, of ${kb(DATA.limits.ram_bytes)}`],
    [ms(resources.latency_ms), "a run, by estimate" + (DATA.limits.latency_ms === null ? "" : `, of ${ms(DATA.limits.latency_ms)}`)],
    [short(resources.kept_parameters), `weights kept, of ${short(resources.parameters)}`],
  ];
  return h("div", { class: "cards" }, values.map(([value, label]) => h("div", { class: "card" }, h("b", {}, value), h("span", { class: "dim" }, label))));
}

function header() {
  const count = (trials, state) => trials.filter(trial => trial.state === state).length;
  const summary = trials => `${whole(count(trials, "finished"))} trained, ${whole(count(trials, "skipped"))} skipped` +
    (count(trials, "lost") ? `, ${whole(count(trials, "lost"))} lost and repeated` : "");
  return [
    h("h1", {}, `Search of space “${DATA.space}” for ${DATA.target.name}`),
    h("p", { class: "dim" }, `${DATA.target.core}, ${fixed(DATA.target.clock_hz / 1e6, 0)} MHz. Supernets: ${summary(DATA.supernets)}.` +
      (PATHS.length ? ` Paths through supernet ${DATA.supernet}: ${summary(PATHS)}.` : "") + (CHOSEN === null ? "" : ` ${DATA.model ? "Chosen" : "Best so far"}: path ${CHOSEN}.`)),
    DATA.progress && state(),
    cards(),
  ];
}

// Scales and charts. A scale maps [low, high] to [from, to]; its ticks are round numbers.
function scale(low, high, from, to) {
  const span = high - low || Math.abs(high) || 1;
  const step = [1, 2, 2.5, 5, 10].map(m => m * 10 ** Math.floor(Math.log10(span / 4))).find(s => span / s <= 5);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  return { at: value => from + (value - low) / (high - low || 1) * (to - from), ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
const extent = (values, margin) => {
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low || Math.abs(high) || 1) * margin;
  return [Math.max(0, low - pad), high + pad];
};
const WIDTH = 460, HEIGHT = 300, LEFT = 52, RIGHT = 12, TOP = 14, BOTTOM = 40;

function frame(label, x, y, xTitle, marks) {
  return svg("svg", { class: "chart-svg", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    y.ticks.map(tick => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(tick), y2: y.at(tick) }),
      svg("text", { x: LEFT - 6, y: y.at(tick) + 4, "text-anchor": "end" }, fixed(tick, y.digits) + " %")]),
    x.ticks.map(tick => svg("text", { x: x.at(tick), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, fixed(tick, x.digits))),
    svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xTitle),
    marks);
}

// Those that no other beats: as accurate for less, or more accurate for the same.
function front(points) {
  const sorted = [...points].sort((a, b) => a.x - b.x || b.y - a.y), kept = [];
  for (const point of sorted) if (!kept.length || point.y > kept[kept.length - 1].y) kept.push(point);
  return kept;
}

function scatter(title, unit, of, limit) {
  const points = finished.filter(trial => trial.resources && of(trial.resources) !== null)
    .map(trial => ({ trial, x: of(trial.resources), y: 100 * trial.accuracy }));
  if (!points.length) return null;
  const [low, high] = extent(points.map(point => point.x), 0.08);
  // a limit far to the right of all trials would squeeze them
  const shown = limit !== null && limit < high * 2;
  const x = scale(low, shown ? Math.max(high, limit * 1.02) : high, LEFT, WIDTH - RIGHT);
  const y = scale(...extent(points.map(point => point.y), 0.1), HEIGHT - BOTTOM, TOP);
  const best = front(points);
  const steps = best.map((point, index) => `${index ? `H${x.at(point.x)}V` : `M${x.at(point.x)} `}${y.at(point.y)}`).join("");
  const label = `Accuracy against ${title}: ${points.length} models, ${best.length} on the Pareto front`;
  return h("div", { class: "panel" }, h("h3", { style: { marginTop: 0 } }, `Accuracy against ${title}`),
    frame(label, x, y, unit, [
      shown ? [svg("line", { class: "limit", x1: x.at(limit), x2: x.at(limit), y1: TOP, y2: HEIGHT - BOTTOM }),
        svg("text", { class: "limit-text", x: x.at(limit) - 4, y: TOP + 10, "text-anchor": "end" }, "limit")] : [],
      svg("path", { class: "front", d: steps }),
      // the chosen one last, on top of the others
      [...points].sort((a, b) => (a.trial.number === CHOSEN) - (b.trial.number === CHOSEN)).map(point =>
        svg("circle", { cx: x.at(point.x), cy: y.at(point.y), r: point.trial.number === CHOSEN ? 6 : 4,
          class: point.trial.number === CHOSEN ? "chosen" : best.includes(point) ? "on-front" : "" },
          svg("title", {}, `path ${point.trial.number}: ${share(point.trial.accuracy)}, ${fixed(point.x, 1)} ${unit}`)))]));
}

const legend = entries => h("div", { class: "legend dim" }, entries.map(([name, text]) => h("span", {}, h("i", { class: `swatch-${name}` }), text)));

function pareto() {
  if (CHOSEN === null) return [];
  const limits = DATA.limits;
  return [h("h2", {}, "What accuracy costs"),
    h("div", { class: "charts" },
      scatter("latency", "ms", r => r.latency_ms, limits.latency_ms),
      scatter("flash", "KB", r => r.flash_bytes / 1024, limits.flash_bytes / 1024),
      scatter("RAM", "KB", r => r.ram_bytes / 1024, limits.ram_bytes / 1024)),
    legend([["chosen", "chosen"], ["on-front", "Pareto front"], ["trial", "other models"], ["limit", "limit, where it is near"]])];
}

function progress(title, trials, chosen) {
  const done = trials.filter(trial => trial.state === "finished");
  if (!done.length) return null;
  const x = scale(0, Math.max(...trials.map(trial => trial.number), 1), LEFT + 8, WIDTH - RIGHT - 8);
  const y = scale(...extent(done.map(trial => 100 * trial.accuracy), 0.1), HEIGHT - BOTTOM, TOP);
  x.ticks = x.ticks.filter(Number.isInteger);
  x.digits = 0;
  let best = -1, line = "";
  for (const trial of done) {
    if (best >= 0) line += `H${x.at(trial.number)}`;
    if (100 * trial.accuracy > best) { line += `${best < 0 ? `M${x.at(trial.number)} ` : "V"}${y.at(best = 100 * trial.accuracy)}`; }
  }
  const foot = HEIGHT - BOTTOM;
  return h("div", { class: "panel" }, h("h3", { style: { marginTop: 0 } }, title),
    frame(`${title}: accuracy of each trial`, x, y, "trial", [
      svg("path", { class: "best-line", d: line }),
      trials.filter(trial => trial.state === "skipped" || trial.state === "lost").map(trial =>
        svg("line", { class: trial.state, x1: x.at(trial.number), x2: x.at(trial.number), y1: foot - 8, y2: foot },
          svg("title", {}, `${trial.number} ${trial.state}${trial.skipped ? ": " + trial.skipped : ""}`))),
      done.map(trial => svg("circle", { cx: x.at(trial.number), cy: y.at(100 * trial.accuracy), r: trial.number === chosen ? 6 : 4, class: trial.number === chosen ? "chosen" : "" },
        svg("title", {}, `${trial.number}: ${share(trial.accuracy)}`)))]));
}

function history() {
  if (![...DATA.supernets, ...PATHS].some(trial => trial.state === "finished")) return [];
  return [h("h2", {}, "How the search went"),
    h("div", { class: "charts" }, progress("SuperNAS: average accuracy of supernets", DATA.supernets, DATA.supernet),
      progress("SparseNAS: accuracy of paths", PATHS, CHOSEN)),
    legend([["trial", "trial"], ["chosen", "best, and best so far"], ["skipped", "skipped: does not fit"], ["lost", "lost and repeated"]])];
}

// The network from left to right, a column for each stage: modules with their layers; a bar is as long as the layer's
// share of the largest one's weights, dark where pruning left them.
function network() {
  if (!DATA.network) return [];
  const { modules, input } = DATA.network;
  const most = Math.max(...modules.flatMap(module => module.layers.map(layer => layer.parameters)), 1);
  const columns = [];
  for (const module of modules) {
    const stage = module.name.startsWith("stages.") ? module.name.split(".")[1] : "end";
    if (!columns.length || columns[columns.length - 1].stage !== stage) columns.push({ stage, modules: [] });
    columns[columns.length - 1].modules.push(module);
  }
  const width = 400, gap = 46, row = 21, head = 30, space = 24, bar = 96;
  const drawn = [];
  let bottom = 0, before = null;
  columns.forEach((column, index) => {
    const x = 8 + index * (width + gap);
    let y = 30;
    drawn.push(svg("text", { class: "title", x, y: 16 }, column.stage === "end" ? "Pooling and classifier" : `Stage ${Number(column.stage) + 1} (DoT)`));
    if (index === 0) drawn.push(svg("text", { class: "dim", x: x + width, y: 16, "text-anchor": "end" }, `input ${dims(input)}`));
    column.modules.forEach((module, place) => {
      const height = head + module.layers.length * row + 6;
      if (before && place) drawn.push(svg("path", { class: "arrow", d: `M${x + width / 2} ${before.y}V${y - 5}` }), svg("path", { class: "arrow-head", d: `M${x + width / 2 - 4} ${y - 7}h8l-4 6z` }));
      if (before && !place) {
        const lane = x - gap / 2;
        drawn.push(svg("path", { class: "arrow", d: `M${before.x + width} ${before.y - 14}H${lane}V${y + 14}H${x - 5}` }), svg("path", { class: "arrow-head", d: `M${x - 7} ${y + 10}v8l6 -4z` }));
      }
      const short = module.name.replace(/^stages\.\d+\./, "").replace(/s\.(\d+)$/, (_, n) => ` ${Number(n) + 1}`);
      drawn.push(svg("rect", { class: "module", x, y, width, height, rx: 7 }),
        svg("text", { class: "title", x: x + 10, y: y + 19 }, short + (module.candidate ? `: ${module.candidate}` : "")),
        svg("text", { class: "dim", x: x + width - 10, y: y + 19, "text-anchor": "end" }, dims(module.shape)));
      module.layers.forEach((layer, position) => {
        const top = y + head + position * row, long = bar * Math.sqrt(layer.parameters / most), kept = layer.parameters ? layer.kept / layer.parameters : 0;
        const kernel = layer.kernel.some(size => size > 1) ? ` ${layer.kernel.join("×")}` : "";
        const pruning = layer.sparsity ? ` · ${fixed(100 * layer.sparsity, 0)} % pruned, blocks of ${layer.block}` : "";
        const label = `${layer.name}: ${layer.kind}${kernel}, output ${dims(layer.shape)}, ${whole(layer.parameters)} parameters, ${whole(layer.kept)} kept${pruning}`;
        drawn.push(svg("g", {}, svg("title", {}, label),
          svg("rect", { class: "layer", x: x + 8, y: top, width: width - 16, height: row - 3, rx: 4 }),
          svg("text", { x: x + 14, y: top + 13.5 }, layer.name),
          svg("text", { class: "dim", x: x + 104, y: top + 13.5 }, `${layer.kind}${kernel}`),
          svg("text", { class: "dim", x: x + 200, y: top + 13.5 }, layer.sparsity ? `−${fixed(100 * layer.sparsity, 0)} % in ${layer.block}s` : layer.parameters ? "dense" : ""),
          svg("rect", { class: "pruned", x: x + width - bar - 14, y: top + 5, width: long, height: 8, rx: 2 }),
          svg("rect", { class: "kept", x: x + width - bar - 14, y: top + 5, width: long * kept, height: 8, rx: 2 })));
      });
      before = { x, y: y + height };
      y += height + space;
    });
    bottom = Math.max(bottom, y);
  });
  const total = 16 + columns.length * width + (columns.length - 1) * gap;
  const name = DATA.model ? "The chosen network" : "The best network so far";
  return [h("h2", {}, name),
    h("p", { class: "dim" }, `${whole(DATA.network.kept)} of ${whole(DATA.network.parameters)} weights are kept. A bar's length is the root of a layer's share of the largest one's weights; its dark part is what pruning left. Residual connections and the inputs of attention are left out.`),
    h("div", { class: "panel scroll", tabindex: 0, role: "region", "aria-label": name },
      svg("svg", { class: "network", viewBox: `0 0 ${total} ${bottom}`, style: { minWidth: `${Math.min(total, 900)}px` }, role: "img", "aria-label": `Modules and layers: ${name.toLowerCase()}` }, drawn))];
}

function trials() {
  const used = of => row => row.resources ? of(row.resources) : null;
  const columns = [
    { title: "path", value: r => r.number, show: r => r.number },
    { title: "state", kind: "text", value: r => r.state, show: r => r.number === CHOSEN ? (DATA.model ? "chosen" : "best so far") : r.state },
    { title: "accuracy", value: r => r.accuracy, show: r => share(r.accuracy) },
    { title: "latency", value: used(r => r.latency_ms), show: r => ms(used(u => u.latency_ms)(r)) },
    { title: "flash", value: used(r => r.flash_bytes), show: r => r.resources ? kb(r.resources.flash_bytes) : "–" },
    { title: "RAM", value: used(r => r.ram_bytes), show: r => r.resources ? kb(r.resources.ram_bytes) : "–" },
    { title: "weights kept", value: used(r => r.kept_parameters), show: r => r.resources ? `${short(r.resources.kept_parameters)} of ${short(r.resources.parameters)}` : "–" },
    { title: "took", value: r => r.seconds, show: r => time(r.seconds) },
    { title: "images/s", value: r => r.images_per_second ?? null, show: r => r.images_per_second ? whole(r.images_per_second) : "–" },
    { title: "attempt", value: r => r.attempt, show: r => r.attempt },
    { title: "on", kind: "text", value: r => r.host, show: r => r.host || "–" },
    { title: "why skipped", kind: "text name", value: r => r.skipped || "", show: r => r.skipped || "" },
  ];
  const supernets = [
    { title: "supernet", value: r => r.number, show: r => r.number },
    { title: "state", kind: "text", value: r => r.state, show: r => r.number === DATA.supernet ? (PATHS.length ? "chosen" : "best so far") : r.state },
    { title: "average accuracy", value: r => r.accuracy, show: r => share(r.accuracy) },
    { title: "paths that fit", value: r => r.fitting ?? null, show: r => r.paths === undefined ? "–" : `${r.fitting} of ${r.paths}` },
    { title: "dimensions", kind: "text", value: r => supernetText(r.parameters), show: r => supernetText(r.parameters) },
    { title: "took", value: r => r.seconds, show: r => time(r.seconds) },
    { title: "images/s", value: r => r.images_per_second ?? null, show: r => r.images_per_second ? whole(r.images_per_second) : "–" },
    { title: "why skipped", kind: "text name", value: r => r.skipped || "", show: r => r.skipped || "" },
  ];
  return [PATHS.length ? [h("h2", {}, "Every path"), table(columns, PATHS, { label: "Paths", sorted: 2, down: true })] : null,
    h("h2", {}, "Every supernet"), table(supernets, DATA.supernets, { label: "Supernets", sorted: 2, down: true })];
}

function supernetText(parameters) {
  const stages = [];
  for (let index = 0; `stages.${index}.dim` in parameters; index++) {
    const name = `stages.${index}`;
    stages.push(`${parameters[`${name}.dim`]} (${parameters[`${name}.mobilenets`]} MobileNetV2, ${parameters[`${name}.transformers`]} transformer)`);
  }
  return `${stages.join(", ")}; heads ${parameters.heads}, last ${parameters.last_linear}`;
}

show(header(), pareto(), history(), network(), trials(),
  h("footer", {}, `tinyformer ${DATA.version}, seed ${DATA.seed}. Accuracies are those of integer models in the golden model; latency is the predictor's.`));
