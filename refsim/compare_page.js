const number = text => text === null ? null : Number(text);
const db = value => value === null ? "–" : number(value) === Infinity ? "exact" : fixed(number(value), 1) + " dB";
const digits = value => value === null ? "–" : Math.abs(value) >= 1e-3 || !value ? fixed(value, 4) : value.toExponential(1);
const rate = value => value ? (value >= 1e-3 ? fixed(100 * value, 1) : (100 * value).toPrecision(1)) + " %" : "0";
const LAYERS = DATA.layers.map((layer, index) => ({ index, ...layer }));
const sqnr = LAYERS.map(layer => number(layer.sqnr_db)).filter(value => value !== null && isFinite(value));
const highest = Math.max(...sqnr, 1);
const grade = value => value < 20 ? "low" : value < 30 ? "middle" : "sqnr";

function decibelBar(value, most) {
  const height = value === null ? 0 : Math.max(0, Math.min(number(value), most));
  return h("div", { class: "pair" },
    h("div", { class: "bar", role: "img", "aria-label": db(value) }, h("i", { class: grade(height), style: { width: 100 * height / most + "%" } })),
    h("span", {}, db(value)));
}

// Counts of the bytes, four to a bar, on a scale of square roots; red where an end of the range cuts off 0.05 % of the values or more.
function histogram(layer, large) {
  const bins = Array.from({ length: 64 }, (_, bin) => layer.histogram.slice(4 * bin, 4 * bin + 4).reduce((a, b) => a + b, 0));
  const most = Math.max(...bins, 1), zero = (layer.zero_point + 128.5) / 4;
  const cut = bin => (layer.clipped ?? layer.saturation) >= 0.0005 && (bin === 0 && layer.zero_point !== -128 && layer.histogram[0] || bin === 63 && layer.zero_point !== 127 && layer.histogram[255]);
  const label = `${layer.levels} of 256 bytes occur, ${rate(layer.saturation)} at an end of the range`;
  return svg("svg", { class: "histogram" + (large ? " large" : ""), viewBox: "0 0 64 100", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("title", {}, label),
    bins.map((count, bin) => {
      const height = count ? Math.max(2, 100 * Math.sqrt(count / most)) : 0;
      return svg("rect", { x: bin + 0.06, y: 100 - height, width: 0.88, height, class: cut(bin) ? "end" : "" });
    }),
    svg("line", { x1: zero, x2: zero, y1: 0, y2: 100 }));
}

function header() {
  const output = LAYERS[LAYERS.length - 1];
  const cards = [
    ...(DATA.quantized ? [
      [percent(DATA.quantized.accuracy, 1), "accuracy, int8"],
      [percent(DATA.real.accuracy, 1), "accuracy, reference"],
      [percent(DATA.agreement, 1), "same class"],
    ] : []),
    [db(output.sqnr_db), "SQNR of the last layer"],
    [whole(LAYERS.length), "layers that compute"],
    [whole(DATA.samples), "samples"],
  ];
  return [
    h("h1", {}, DATA.model),
    h("p", { class: "dim" }, `The int8 model, bit-exact, beside ${DATA.reference}.`),
    h("div", { class: "cards" }, cards.map(([value, label]) => h("div", { class: "card" }, h("b", {}, value), h("span", { class: "dim" }, label)))),
    DATA.unmatched.length ? h("p", { class: "warning" }, `${DATA.unmatched.length} layers have no tensor of their name in the reference: ${DATA.unmatched.join(", ")}.`) : null,
  ];
}

// Every layer as a bar, in the order they run: how the error grows with depth.
function depth() {
  const most = Math.ceil(highest / 10) * 10, width = 1000 / LAYERS.length;
  const bars = LAYERS.map(layer => {
    const value = layer.sqnr_db === null ? 0 : Math.max(0, Math.min(number(layer.sqnr_db), most));
    return svg("rect", { x: layer.index * width + width * 0.1, y: 100 - 100 * value / most, width: width * 0.8, height: 100 * value / most, class: grade(value) },
      svg("title", {}, `${layer.node} (${layer.operator}): ${db(layer.sqnr_db)}`));
  });
  const lines = [20, 30, 40, 50].filter(value => value < most);
  return [h("h2", {}, "Signal to quantisation noise, layer by layer"),
    h("div", { class: "panel" },
      h("div", { class: "depth" },
        svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": "SQNR of every layer in the order they run" },
          bars, lines.map(value => svg("line", { x1: 0, x2: 1000, y1: 100 - 100 * value / most, y2: 100 - 100 * value / most }))),
        lines.map(value => h("span", { class: "dim", style: { bottom: 100 * value / most + "%" } }, `${value} dB`))),
      h("p", { class: "dim" }, "From the first layer to the last. Below 30 dB orange, below 20 dB red; rounding a tensor that fills its range evenly leaves 48 dB."))];
}

function worst() {
  const cards = DATA.worst.map(name => LAYERS.find(layer => layer.node === name)).map(layer => h("div", { class: "card" },
    h("b", { style: { fontSize: "15px" } }, layer.node),
    h("p", { class: "dim" }, `${layer.operator}: ${fixed(layer.lost_db, 1)} dB lost here, ${db(layer.sqnr_db)} left`),
    histogram(layer, true),
    h("div", { class: "axis dim" }, h("span", {}, layer.range_low.toPrecision(3)), h("span", {}, `${layer.levels} levels`), h("span", {}, layer.range_high.toPrecision(3))),
    h("p", { class: "dim" }, `real values ${layer.real_low.toPrecision(3)} to ${layer.real_high.toPrecision(3)}; error ${fixed(layer.rms_steps, 2)} steps rms`)));
  return cards.length ? [h("h2", {}, "Where most is lost"), h("div", { class: "worst" }, cards)] : null;
}

function layers() {
  const columns = [
    { title: "#", value: r => r.index, show: r => r.index },
    { title: "layer", kind: "text name", value: r => r.node, show: r => r.node },
    { title: "operator", kind: "text", value: r => r.operator, show: r => r.operator },
    { title: "SQNR", kind: "chart", value: r => number(r.sqnr_db), show: r => decibelBar(r.sqnr_db, highest) },
    { title: "bytes, −128 to 127", kind: "chart", value: r => r.levels, show: r => histogram(r, false) },
    { title: "lost here", value: r => r.lost_db, show: r => r.lost_db === null ? "–" : fixed(r.lost_db, 1) + " dB" },
    { title: "cosine", value: r => r.cosine, show: r => r.cosine === null ? "–" : fixed(r.cosine, 5) },
    { title: "max error", value: r => r.max_error, show: r => digits(r.max_error) },
    { title: "mean error", value: r => r.mean_error, show: r => digits(r.mean_error) },
    { title: "rms, steps", value: r => r.rms_steps, show: r => r.rms_steps === null ? "–" : fixed(r.rms_steps, 2) },
    { title: "clipped", value: r => r.clipped, show: r => r.clipped === null ? "–" : rate(r.clipped) },
    { title: "at the ends", value: r => r.saturation, show: r => rate(r.saturation) },
    { title: "dead channels", value: r => r.dead_channels / r.channels, show: r => r.dead_channels ? `${r.dead_channels}/${r.channels}` : "0" },
    { title: "bytes used", value: r => r.levels, show: r => r.levels },
  ];
  return [h("h2", {}, "Layers"),
    h("p", { class: "dim" }, "Errors add up from layer to layer; “lost here” is against the worst of a layer's inputs. Histograms: square root of the count, the dashed line is zero."),
    table(columns, LAYERS, { label: "Layers" })];
}

function sensitivity() {
  if (!DATA.sensitivity) return null;
  const rows = DATA.sensitivity.layers, finite = rows.map(row => number(row.sqnr_db)).filter(isFinite);
  const most = Math.max(...finite, 1);
  const columns = [
    { title: "layer", kind: "text name", value: r => r.node, show: r => r.node },
    { title: "operator", kind: "text", value: r => r.operator, show: r => r.operator },
    { title: "SQNR of the output", kind: "chart", value: r => number(r.sqnr_db), show: r => decibelBar(r.sqnr_db, most) },
    { title: "other class", value: r => r.changed, show: r => r.changed === null ? "–" : rate(r.changed) },
    { title: "accuracy", value: r => r.accuracy_change, show: r => r.accuracy_change === null ? "–" : fixed(100 * r.accuracy_change, 2) + " points" },
  ];
  return [h("h2", {}, "Sensitivity: this layer in int8, all others in real numbers"),
    table(columns, rows, { label: "Sensitivity", sorted: 2, limit: 20 }),
    h("p", { class: "dim" }, `${whole(DATA.sensitivity.samples)} samples.`)];
}

function matrix(title, evaluation) {
  const confusion = evaluation.confusion;
  const cell = (count, row, column) => {
    const total = confusion[row].reduce((a, b) => a + b, 0), share = total ? count / total : 0;
    const colour = row === column ? "var(--teal)" : "var(--red)";
    return h("td", {
      title: `class ${row} taken for ${column}: ${whole(count)}`,
      style: { background: count ? `color-mix(in srgb, ${colour} ${15 + 65 * Math.sqrt(share)}%, var(--card))` : "transparent" },
    }, count || "");
  };
  return h("div", { class: "panel scroll confusion", role: "region", "aria-label": title, tabindex: 0 }, h("table", {},
    h("caption", {}, `${title}: rows are the true classes, columns the answers`),
    h("thead", {}, h("tr", {}, h("th"), confusion.map((_, index) => h("th", { scope: "col" }, index)))),
    h("tbody", {}, confusion.map((counts, row) => h("tr", {}, h("th", { scope: "row" }, row), counts.map((count, column) => cell(count, row, column)))))));
}

function confusion() {
  if (!DATA.quantized || DATA.quantized.confusion.length > 100) return null;
  return [h("h2", {}, "Confusion"), h("div", { class: "matrices" }, matrix("int8", DATA.quantized), matrix("reference", DATA.real))];
}

show(header(), depth(), worst(), layers(), sensitivity(), confusion(),
  h("footer", {}, h("p", {}, `refsim ${DATA.version}, ${whole(DATA.samples)} samples of ${DATA.data}. Error = int8 − real, in the tensor's own unit.`)));
