/* Distributions before and after the norm: measured (filled), and expected from running statistics or β and γ (line). */

const RIDGES = 9;

/** How many rows a curve may be high, so that a spike does not run over its neighbors. */
const TALLEST = 1.6;

/** A few channels worth drawing: the opened one, the picked ones, else the most and least shifted and the heaviest tail. */
function tellingChannels(layer, columns, state) {
  const picked = [];
  if (state.picked) for (let c = 0; c < layer.n; c++) if (state.picked[layer.start + c]) picked.push(c);
  const kept = state.pins.filter((pin) => pin.layer === state.layer && pin.channel >= 0).map((pin) => pin.channel);
  const first = [...(state.channel >= 0 ? [state.channel] : []), ...kept];
  if (picked.length) return [...new Set([...first, ...picked])].slice(0, RIDGES);
  const strange = columns.pre_kurtosis;
  const distance = columns.shift ?? strange ?? columns.gamma;
  const all = Array.from({ length: layer.n }, (_, c) => c);
  if (layer.n <= RIDGES || !distance) return [...new Set([...first, ...all])].slice(0, RIDGES);
  const key = (c) => Math.abs(distance[c]) || 0;
  const order = all.sort((a, b) => key(b) - key(a) || a - b);
  const middle = Math.floor(order.length / 2);
  const heaviest = strange ? [d3.maxIndex(strange, (v) => (Number.isFinite(v) ? v : -Infinity))] : [];
  const picks = [...first, ...order.slice(0, 3), order[middle - 1], order[middle], ...heaviest, order[order.length - 1]];
  return [...new Set(picks.filter((c) => c >= 0))].slice(0, RIDGES);
}

/** Density per unit of the scale in each bin: what densities.py wrote, back from the root. */
function density(bytes, row, edges) {
  const n = edges.length - 1;
  const found = new Float64Array(n);
  let total = 0;
  for (let k = 0; k < n; k++) {
    found[k] = bytes[row * n + k] ** 2;
    total += found[k] * (edges[k + 1] - edges[k]);
  }
  if (total > 0) for (let k = 0; k < n; k++) found[k] /= total;
  return found;
}

/** What one channel's curves need: bins in units of its own values, and the density there; null where unknown. */
async function curvesOf(store, layer, columns, channel) {
  const { edges } = store.manifest;
  const [before, after] = [await store.bytes("before"), await store.bytes("after")];
  const places = await store.several(["before_centre", "before_scale", "after_centre", "after_scale"]);
  const at = (name) => (places[name] ? places[name][layer.start + channel] : NaN);
  const gamma = columns.gamma && Number.isFinite(columns.gamma[channel]) ? columns.gamma[channel] : 1;
  const beta = columns.beta && Number.isFinite(columns.beta[channel]) ? columns.beta[channel] : 0;
  const found = { pre: null, post: null, gamma, beta };
  if (layer.before >= 0) {
    const running = layer.placeBefore === "running";
    const centre = running ? columns.running_mean[channel] : at("before_centre");
    const scale = running ? Math.sqrt(columns.running_var[channel] + layer.eps) : at("before_scale");
    found.pre = { centre, scale, heights: density(before, layer.before + channel, edges) };
  }
  if (layer.after === "turned" && found.pre) {
    const heights = gamma < 0 ? Float64Array.from(found.pre.heights).reverse() : found.pre.heights;
    found.post = { heights };
  } else if (layer.after >= 0) found.post = { heights: density(after, layer.after + channel, edges) };
  if (found.post) {
    const target = layer.placeAfter === "target";
    found.post.centre = target ? beta : at("after_centre");
    found.post.scale = target ? Math.abs(gamma) : at("after_scale");
  }
  return found;
}

/** Both panels of one layer. */
function newRidges(store, state, tip, open) {
  const margin = { top: 8, right: 12, bottom: 40, left: 74 };
  const before = newPlot("Before the norm", 330, margin, "Distributions of some channels before the norm.");
  const after = newPlot("After the norm", 330, { ...margin, left: 30 }, "Distributions of some channels after the norm.");
  const element = make("div", { class: "pair" }, before.element, after.element);

  let [shown, curves] = [[], []];

  async function prepare(layer, columns) {
    shown = tellingChannels(layer, columns, state);
    curves = await Promise.all(shown.map((c) => curvesOf(store, layer, columns, c)));
    element.hidden = !curves.some((c) => c.pre || c.post);
  }

  function measure() {
    before.measure();
    after.measure();
  }

  function draw(layer, columns) {
    if (element.hidden) return;
    const picked = state.picked && pickedIn(state.picked, layer);
    const which = picked ? `Shown: ${Math.min(picked, RIDGES)} of ${count(picked, "selected channel")}` : "The most unusual channels; click any dot below to add one";
    before.note.textContent = layer.running
      ? `Blue: measured. Orange: expected from the running statistics. ${which}.`
      : `Blue: measured. Orange: a Gaussian with the same mean and standard deviation. ${which}.`;
    after.note.textContent = `Blue: measured. Orange: N(β, γ²), the target. Dashed: zero${activationOf(layer)?.low === 0 ? `, where the ${written(activationOf(layer).name)} cuts` : ""}.`;
    drawBefore(layer, columns);
    drawAfter();
  }

  function drawBefore(layer, columns) {
    before.margin.left = 56 + 7 * d3.max(shown, (c) => String(c).length); // room for the longest "channel 4095"
    const { context, inner, width, height } = before.size();
    const x = d3.scaleLinear().domain([-5, 5]).range([0, width]);
    const rows = curves.map((curve, i) => {
      const c = shown[i];
      const [centre, scale] = layer.running
        ? [columns.running_mean[c], Math.sqrt(columns.running_var[c] + layer.eps)]
        : [columns.pre_mean?.[c] ?? NaN, Math.sqrt(columns.pre_var?.[c] ?? NaN)];
      return { curve: curve.pre, toUnit: (v) => (v - centre) / scale, unit: scale, line: bell, sound: scale > 0 && Number.isFinite(centre) };
    });
    ridges(context, inner, rows, x, width, height, true);
    const words = layer.running ? "running σ from the running mean" : "σ of the channel from its mean";
    drawAxes(inner, x, null, width, height, { x: words });
  }

  function drawAfter() {
    const { context, inner, width, height } = after.size();
    const sizes = curves.map((c) => Math.abs(c.gamma)).filter((g) => g > 0).sort(d3.ascending);
    const unit = quantile(sizes, 0.5) || 1;
    const low = d3.min(curves, (c) => c.beta) - 4 * unit;
    const high = d3.max(curves, (c) => c.beta) + 4 * unit;
    const x = d3.scaleLinear().domain([low, high]).range([0, width]);
    if (low < 0 && high > 0) inner.append("line").attr("class", "zero").attr("x1", x(0)).attr("x2", x(0)).attr("y1", 0).attr("y2", height);
    const rows = curves.map((curve) => {
      const g = Math.abs(curve.gamma);
      return {
        curve: g < 0.02 * unit ? null : curve.post,
        spike: g < 0.02 * unit ? curve.beta : null,
        toUnit: (v) => v,
        unit,
        line: (v) => (g > 0 ? (bell((v - curve.beta) / g) / g) * unit : 0),
        sound: true,
      };
    });
    ridges(context, inner, rows, x, width, height, false);
    drawAxes(inner, x, null, width, height, { x: "output of the norm" });
  }

  /** Curves one below the other, the lower ones in front. */
  function ridges(context, inner, rows, x, width, height, named) {
    const ink = inks(element);
    const step = height / (rows.length + 1.4);
    const tall = TALLEST * step;
    rows.forEach((row, i) => {
      const base = (i + 2.4) * step - 0.4 * step;
      const strong = shown[i] === state.channel;
      context.globalAlpha = 1;
      context.strokeStyle = ink.line;
      context.lineWidth = 1;
      context.strokeRect(0, base, width, 0);
      if (row.curve && row.sound) fillCurve(context, row, x, base, tall, width, ink.measured, strong);
      if (row.spike !== null && row.spike !== undefined) {
        context.strokeStyle = ink.measured;
        context.lineWidth = 2;
        context.strokeRect(x(row.spike), base - tall / 2, 0, tall / 2);
      }
      context.globalAlpha = 1;
      context.strokeStyle = ink.expected;
      context.lineWidth = strong ? 1.8 : 1.2;
      context.beginPath();
      for (let px = 0; px <= width; px += 2) context.lineTo(px, base - tall * Math.min(row.line(x.invert(px)), 1.05));
      context.stroke();
      if (named) {
        const label = inner.append("text").attr("class", `ridge${strong ? " strong" : ""}`).attr("x", -6).attr("y", base - 3).text(`channel ${shown[i]}`);
        label.on("click", () => open(shown[i]));
      }
    });
    const levels = rows.map((_, i) => (i + 2) * step);
    inner.append("rect").attr("class", "catch").attr("width", width).attr("height", height)
      .on("pointermove", (event) => {
        const [px, py] = d3.pointer(event);
        const i = d3.leastIndex(levels, (level) => (level < py - 2 ? 1e9 : level - py));
        const value = x.invert(px);
        const row = rows[i];
        const measured = row.curve && row.sound ? heightAt(row, value) : NaN;
        tip.show(event.clientX, event.clientY, [`channel ${shown[i]}`, `at ${number(value)}`, `measured ${number(measured, 2)}, expected ${number(row.line(value), 2)} (density)`]);
      })
      .on("pointerleave", tip.hide)
      .on("click", (event) => {
        const py = d3.pointer(event)[1];
        open(shown[d3.leastIndex(levels, (level) => (level < py - 2 ? 1e9 : level - py))]);
      });
  }

  function heightAt({ curve, toUnit, unit }, value) {
    const { edges } = store.manifest;
    for (let k = 0; k < curve.heights.length; k++) {
      if (toUnit(curve.centre + curve.scale * edges[k + 1]) > value) {
        return toUnit(curve.centre + curve.scale * edges[k]) <= value ? (curve.heights[k] / curve.scale) * unit : 0;
      }
    }
    return 0;
  }

  function fillCurve(context, { curve, toUnit, unit }, x, base, tall, width, colour, strong) {
    const { edges } = store.manifest;
    context.globalAlpha = strong ? 0.85 : 0.6;
    context.fillStyle = colour;
    context.beginPath();
    let started = false;
    for (let k = 0; k < curve.heights.length; k++) {
      const middle = toUnit(curve.centre + (curve.scale * (edges[k] + edges[k + 1])) / 2);
      const px = x(middle);
      if (!(px > -60 && px < width + 60)) continue;
      const y = base - tall * Math.min((curve.heights[k] / curve.scale) * unit, 1.05);
      if (!started) context.moveTo(Math.max(px, 0), base);
      started = true;
      context.lineTo(Math.max(0, Math.min(px, width)), y);
    }
    context.lineTo(width, base);
    if (started) context.fill();
  }

  before.rows = () => rows("pre");
  after.rows = () => rows("post");

  /** The curves that are drawn, in numbers. */
  function rows(name) {
    const found = [["channel", "from", "to", "density"]];
    curves.forEach((curve, i) => {
      if (curve[name]) for (const bar of bars(curve[name], store.manifest.edges, (v) => v)) if (bar[2] > 0) found.push([shown[i], ...bar]);
    });
    return found;
  }

  return { element, plots: [before, after], prepare, measure, draw };
}
