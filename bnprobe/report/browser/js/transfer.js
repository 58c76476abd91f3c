/* One channel from input to output: its inputs below, the line of the norm, the kink of what follows, its outputs at the left. */

const PINS = ["#8466b3", "#2c9c7c", "#c2a83e", "#c9567f"];
/* The four inks of colours.py that are neither measured nor expected. */

const Z_REACH = 4.5;

/** What the operation behind the norm makes of an output, and between which outputs it is not flat; by its name. */
const ACTIVATIONS = {
  relu: [(y) => Math.max(y, 0), 0, Infinity],
  relu6: [(y) => Math.min(Math.max(y, 0), 6), 0, 6],
  hardtanh: [(y) => Math.min(Math.max(y, -1), 1), -1, 1],
  hardsigmoid: [(y) => Math.min(Math.max(y / 6 + 0.5, 0), 1), -3, 3],
  hardswish: [(y) => y * Math.min(Math.max(y / 6 + 0.5, 0), 1), -3, Infinity],
  silu: [(y) => y / (1 + Math.exp(-y)), -Infinity, Infinity],
  gelu: [(y) => 0.5 * y * (1 + Math.tanh(0.797885 * (y + 0.044715 * y ** 3))), -Infinity, Infinity],
  sigmoid: [(y) => 1 / (1 + Math.exp(-y)), -Infinity, Infinity],
  tanh: [Math.tanh, -Infinity, Infinity],
};

/** The operation that alone follows the layer, {name, act, low, high}; null where there is none that is known. */
function activationOf(layer) {
  const ways = [...new Set(layer.follows.split(" | ").map((way) => way.replace(/^cat, /, "")))];
  const known = ways.length === 1 ? ACTIVATIONS[ways[0]] : null;
  return known ? { name: ways[0], act: known[0], low: known[1], high: known[2] } : null;
}

/** Columns of one layer, out of those of the network. */
function slices(all, layer) {
  return Object.fromEntries(Object.entries(all).map(([name, column]) => [name, column?.subarray(layer.start, layer.start + layer.n)]));
}

/** Bins and densities of a curve in units that `toUnit` makes of values: [[from, to, density], ...]. */
function bars(curve, edges, toUnit) {
  const turned = toUnit(1) < toUnit(0);
  return Array.from(curve.heights, (height, k) => {
    const ends = [edges[k], edges[k + 1]].map((edge) => toUnit(curve.centre + curve.scale * edge));
    const [from, to] = turned ? ends.reverse() : ends;
    return [from, to, height / curve.scale / Math.abs(toUnit(1) - toUnit(0))];
  });
}

function newTransfer(store, state, tip) {
  const { layers } = store.manifest;
  const side = { input: 74, output: 84 };
  const plot = newPlot("From input to output", 400, { top: 22, right: 14, bottom: 44, left: 50 }, "One channel: its inputs, the line of the norm, what follows it, and its outputs.");
  let lines = [];
  let chosen = null;

  /** What is drawn of one channel. */
  async function lineOf(i, channel, columns, colour) {
    const layer = layers[i];
    const curves = await curvesOf(store, layer, columns, channel);
    const running = layer.running && columns.running_mean && columns.running_var;
    const mean = running ? columns.running_mean[channel] : (columns.pre_mean?.[channel] ?? NaN);
    const sd = Math.sqrt((running ? columns.running_var[channel] : (columns.pre_var?.[channel] ?? NaN)) + layer.eps);
    return { layer, channel, colour, mean, sd, curves, fires: columns.fires?.[channel] ?? NaN, acts: activationOf(layer) };
  }

  async function prepare(layer, columns) {
    const position = layers.indexOf(layer);
    const channel = state.channel >= 0 ? state.channel : tellingChannels(layer, columns, state)[0];
    const all = await store.several(store.names);
    const pinned = state.pins
      .map((pin, k) => ({ ...pin, colour: PINS[k] }))
      .filter((pin) => pin.channel >= 0 && !(pin.layer === position && pin.channel === channel));
    lines = await Promise.all([
      lineOf(position, channel, columns, null),
      ...pinned.map((pin) => lineOf(pin.layer, pin.channel, slices(all, layers[pin.layer]), pin.colour)),
    ]);
    chosen = lines[0];
    plot.element.hidden = !chosen.curves.pre || !(chosen.sd > 0);
  }

  function draw() {
    if (plot.element.hidden) return;
    const { context, inner, width, height } = plot.size();
    const ink = inks(plot.element);
    const [left, bottom] = [Math.min(side.output, width / 4), height - side.input];
    const x = d3.scaleLinear().domain([-Z_REACH, Z_REACH]).range([left, width]);
    const reach = (sign) => d3.extent(lines.filter((l) => l.curves.pre).flatMap(({ curves: { beta, gamma } }) => [0, beta + 4 * gamma, beta - 4 * gamma]))[sign];
    const y = d3.scaleLinear().domain([reach(0) - 0.05, reach(1) + 0.05]).range([bottom, 0]);
    const { name, act, low, high } = chosen.acts ?? {};
    plot.heading.textContent = `From input to output: channel ${chosen.channel}${state.channel >= 0 ? "" : " (the most unusual)"}`;
    shadeFlat(inner, { low, high }, x, y, left, width);
    for (const line of [...lines].reverse()) {
      histogram(context, inputBars(line), (z) => x(z), (d) => height - d * side.input * 1.9, height, line.colour, ink, [left, width]);
      outputs(context, line, y, left, ink, bottom);
      inner.append("line").attr("class", line.colour ? "pin-line" : "norm-line").style("stroke", line.colour)
        .attr("x1", x(-4)).attr("x2", x(4)).attr("y1", y(line.curves.beta - 4 * line.curves.gamma)).attr("y2", y(line.curves.beta + 4 * line.curves.gamma));
    }
    expected(inner, x, y, left, height, bottom);
    if (act) {
      const path = d3.line((z) => x(z), (z) => y(act(chosen.curves.beta + chosen.curves.gamma * z)));
      inner.append("path").attr("class", "after-line").attr("d", path(d3.range(-4, 4.01, 0.05)));
    }
    frame(inner, x, y, left, width, height, bottom);
    const cut = Number.isFinite(low) && low === 0 && Number.isFinite(chosen.fires) ? `; the ${written(name)} cuts ${percent(1 - chosen.fires)} (red)` : name ? `; bold: after the ${written(name)}` : "";
    plot.note.textContent =
      `Blue: measured. Orange: expected from ${chosen.layer.running ? "the running statistics and from β and γ" : "β and γ"}. ` +
      `Line: the norm, slope γ = ${number(chosen.curves.gamma)}, β = ${number(chosen.curves.beta)}${cut}.` +
      (lines.length > 1 ? ` Pinned: ${lines.slice(1).map((l) => `${shorten(l.layer.title, 24)} channel ${l.channel}`).join(", ")}.` : "");
    catchPointer(inner, x, y, width, height);
  }

  const inputBars = (line) => (line.curves.pre ? bars(line.curves.pre, store.manifest.edges, (v) => (v - line.mean) / line.sd) : []);

  /** Outputs along the left side, the part that is cut in red. */
  function outputs(context, line, y, left, ink, bottom) {
    const { curves, colour, acts } = line;
    const unit = Math.max(Math.abs(curves.gamma), 0.02);
    if (!curves.post || Math.abs(curves.gamma) < 1e-3) {
      context.strokeStyle = colour ?? ink.measured;
      context.lineWidth = 3;
      context.strokeRect(left - 60, y(curves.beta), 60, 0);
      return;
    }
    const wide = (d) => left - Math.min(d * unit * 2 * left * 0.92, left * 0.98);
    const found = bars(curves.post, store.manifest.edges, (v) => v);
    const parts = colour || !acts ? [[found, colour, ink.measured]] : [
      [found.filter(([from, to]) => (from + to) / 2 > acts.low && (from + to) / 2 < acts.high), null, ink.measured],
      [found.filter(([from, to]) => (from + to) / 2 <= acts.low || (from + to) / 2 >= acts.high), null, ink.critical],
    ];
    for (const [some, pin, fill] of parts) {
      context.fillStyle = fill;
      context.strokeStyle = pin ?? fill;
      context.globalAlpha = pin ? 1 : 0.75;
      context.lineWidth = 1.4;
      context.beginPath();
      for (const [from, to, d] of some) {
        const [y0, y1] = [y(to), y(from)].map((v) => Math.max(0, Math.min(v, bottom)));
        if (!(y1 > y0) || !(d > 0)) continue;
        if (pin) context.lineTo(wide(d), (y0 + y1) / 2);
        else context.fillRect(wide(d), y0, left - wide(d), y1 - y0);
      }
      if (pin) context.stroke();
    }
    context.globalAlpha = 1;
  }

  function histogram(context, found, across, up, base, colour, ink, [from, to]) {
    context.globalAlpha = colour ? 1 : 0.75;
    context.fillStyle = ink.measured;
    context.strokeStyle = colour ?? ink.measured;
    context.lineWidth = 1.4;
    context.beginPath();
    for (const [a, b, d] of found) {
      const [x0, x1] = [Math.max(across(a), from), Math.min(across(b), to)];
      if (!(x1 > x0)) continue;
      const top = Math.max(up(d), base - side.input + 4);
      if (colour) context.lineTo((x0 + x1) / 2, top);
      else context.fillRect(x0, top, x1 - x0, base - top);
    }
    if (colour) context.stroke();
    context.globalAlpha = 1;
  }

  /** What the running statistics, and β and γ, let one expect of the opened channel. */
  function expected(inner, x, y, left, height, bottom) {
    const { gamma, beta } = chosen.curves;
    const below = d3.line((z) => x(z), (z) => height - bell(z) * side.input * 1.9);
    inner.append("path").attr("class", "expected curve").attr("d", below(d3.range(-Z_REACH, Z_REACH + 0.01, 0.1)));
    if (Math.abs(gamma) < 0.02) return;
    const beside = d3.line((z) => left - bell(z) * 2 * left * 0.92, (z) => y(beta + gamma * z));
    inner.append("path").attr("class", "expected curve").attr("d", beside(d3.range(-4, 4.01, 0.1).filter((z) => y(beta + gamma * z) <= bottom + 1)));
  }

  /** Outputs at which what follows is flat: nothing of them, and of their gradient, gets through. */
  function shadeFlat(inner, { low, high }, x, y, left, width) {
    const [lowest, highest] = y.domain();
    const shade = (from, to) => {
      if (to > from) inner.append("rect").attr("class", "cut").attr("x", left).attr("width", width - left).attr("y", y(to)).attr("height", y(from) - y(to));
    };
    if (Number.isFinite(low)) shade(lowest, Math.min(low, highest));
    if (Number.isFinite(high)) shade(Math.max(high, lowest), highest);
  }

  function frame(inner, x, y, left, width, height, bottom) {
    const grid = (x1, x2, y1, y2, kind = "grid") => inner.append("line").attr("class", kind).attr("x1", x1).attr("x2", x2).attr("y1", y1).attr("y2", y2);
    grid(left, left, 0, height);
    grid(0, width, bottom, bottom);
    grid(left, width, y(0), y(0), "zero");
    inner.append("g").attr("class", "axis").call(d3.axisLeft(y).ticks(5).tickSize(4).tickSizeOuter(0).tickFormat(tick));
    const below = inner.append("g").attr("class", "axis").attr("transform", `translate(0,${height})`);
    below.call(d3.axisBottom(x).ticks(5).tickSize(4).tickSizeOuter(0).tickFormat(tick));
    const words = chosen.layer.running ? "input, in running σ from the running mean" : "input, in σ of the channel from its mean";
    below.append("text").attr("class", "label").attr("x", (left + width) / 2).attr("y", 34).style("text-anchor", "middle").text(words);
    inner.append("text").attr("class", "axis-name").attr("x", -42).attr("y", -8).text("output of the norm");
  }

  function catchPointer(inner, x, y, width, height) {
    inner.append("rect").attr("class", "catch").attr("width", width).attr("height", height)
      .on("pointermove pointerdown", (event) => {
        const z = Math.max(-Z_REACH, Math.min(Z_REACH, x.invert(d3.pointer(event)[0])));
        const out = chosen.curves.beta + chosen.curves.gamma * z;
        const told = [`channel ${chosen.channel}`, `input ${number(chosen.mean + z * chosen.sd)} (${number(z, 2)} σ)`, `output ${number(out)}`];
        if (chosen.acts) told.push(`after the ${written(chosen.acts.name)} ${number(chosen.acts.act(out))}`);
        tip.show(event.clientX, event.clientY, told);
      })
      .on("pointerleave", tip.hide);
  }

  /** The curves as rows of a table: what is drawn, in numbers. */
  function rows() {
    const found = [["layer", "channel", "side", "from", "to", "density"]];
    for (const { layer, channel, curves } of lines) {
      for (const [name, curve] of [["input", curves.pre], ["output", curves.post]]) {
        if (curve) for (const [from, to, d] of bars(curve, store.manifest.edges, (v) => v)) if (d > 0) found.push([layer.title, channel, name, from, to, d]);
      }
    }
    return found;
  }

  plot.rows = rows;
  return { element: plot.element, plots: [plot], prepare, measure: plot.measure, draw };
}

/** The trade's spelling of an operation. */
function written(name) {
  return { relu: "ReLU", relu6: "ReLU6", silu: "SiLU", gelu: "GELU" }[name] ?? name;
}

function percent(share) {
  return share > 0 && share < 0.0005 ? "under 0.1%" : `${number(100 * share, share < 0.1 ? 2 : 3)}%`;
}
