/* The cells of the map: which channel stands where, and how they are painted. */

/** Height of the band above and below the map in which the largest and the smallest value of each layer stand. */
const CAP = 6;

/** Positions that a number has room for beside the 32 bits of a value. */
const PLACES = 2 ** 21;

/** Channels of each layer in the order of the map: positions within the layer, the first on top. */
function ranks(layers, order, gamma, values) {
  const by = order === "gamma" ? gamma : order === "value" ? values : null;
  return layers.map((layer) => (by ? descending(by, layer, order === "gamma") : Uint32Array.from({ length: layer.n }, (_, c) => c)));
}

/**
 * Positions within a layer, the largest value first and what is not defined last; equal ones in their order.
 *
 * A number without comparisons of ours is sorted ten times as fast: its upper bits are those of the value, turned so that
 * they rise as it falls, and its lower 21 bits the position.
 */
function descending(by, layer, sizes) {
  const single = new Float32Array(1);
  const bits = new Uint32Array(single.buffer);
  const keys = new Float64Array(layer.n);
  for (let c = 0; c < layer.n; c++) {
    const v = by[layer.start + c];
    single[0] = Number.isNaN(v) ? -Infinity : (sizes ? Math.abs(v) : v) + 0; // -0 becomes 0
    const falling = bits[0] & 0x80000000 ? bits[0] : 0x7fffffff - bits[0];
    keys[c] = falling * PLACES + c;
  }
  keys.sort();
  const found = new Uint32Array(layer.n);
  for (let k = 0; k < layer.n; k++) found[k] = keys[k] - PLACES * Math.floor(keys[k] / PLACES);
  return found;
}

/** Positions within each layer of its largest and its smallest value, which no sampling may lose; -1 without any. */
function extremes(layers, values) {
  return layers.map((layer) => {
    let most = -1;
    let least = -1;
    for (let c = 0; c < layer.n; c++) {
      const v = values[layer.start + c];
      if (Number.isNaN(v)) continue;
      if (most < 0 || v > values[layer.start + most]) most = c;
      if (least < 0 || v < values[layer.start + least]) least = c;
    }
    return [most, least];
  });
}

/** The rank that stands `down` (0 to 1) a column of n channels that is `rows` pixels high: both ends are always there. */
function rankAt(down, n, rows) {
  const rank = n > rows ? Math.round((down * rows * (n - 1)) / Math.max(rows - 1, 1)) : Math.floor(down * n);
  return Math.max(0, Math.min(rank, n - 1));
}

/** Every pixel of the map by itself: layers are stretched to one height. */
function paintCells(canvas, drawn, state, root) {
  const { values, layers, plot, paints, order, most, step, top, width, left, height } = drawn;
  const ratio = window.devicePixelRatio || 1;
  const context = sizeCanvas(canvas, width, top + height + CAP + 2);
  const w = Math.max(Math.round(plot * ratio), 1);
  const h = Math.round(height * ratio);
  const cap = Math.round(CAP * ratio);
  const image = context.createImageData(w, h + 2 * cap);
  const pixels = new Uint32Array(image.data.buffer);
  const full = pixelsOf(paints, root, 1);
  const pale = state.picked ? pixelsOf(paints, root, 0.22) : full;
  const gap = step * ratio > 9 ? 1 : 0;
  const colour = (channel) => {
    const place = paints.at(values[channel]);
    return (state.picked?.[channel] ? full : pale)[place < 0 ? 256 : place];
  };
  const row = (y, from, to, pixel) => pixels.fill(pixel, y * w + from, y * w + to);
  layers.forEach((layer, i) => {
    const from = Math.round(i * step * ratio);
    const to = Math.max(Math.min(Math.round((i + 1) * step * ratio) - gap, w), from);
    for (let y = 0; y < h; y++) row(cap + y, from, to, colour(layer.start + order[i][rankAt(y / h, layer.n, h)]));
    most[i].forEach((c, end) => {
      if (c < 0) return;
      for (let y = 0; y < cap - 1; y++) row(end ? h + cap + 1 + y : y, from, to, colour(layer.start + c));
    });
  });
  context.putImageData(image, Math.round(left * ratio), Math.round((top - CAP) * ratio));
}

/** The 256 colours of a painter as pixels, and that of what is not defined; of each a share on paper. */
function pixelsOf(paints, root, share) {
  const [nothing, paper] = ["line", "paper"].map((name) => rgb(inks(root)[name]));
  const bytes = new Uint8ClampedArray(4 * 257).fill(255);
  for (let k = 0; k < 257; k++) bytes.set(faded(k < 256 ? [...paints.bytes.subarray(3 * k, 3 * k + 3)] : nothing, paper, share), 4 * k);
  return new Uint32Array(bytes.buffer);
}

/** What the colours mean, below the map. */
function drawLegend(legend, drawn, manifest, paint, stretched) {
  const { paints } = drawn;
  legend.replaceChildren(make("span", { class: "title" }, paint.label));
  if (paints.names) {
    const there = new Set(drawn.values);
    manifest.roleLabels.forEach((role, i) => {
      if (!there.has(i)) return;
      const swatch = make("i", { class: "swatch" });
      swatch.style.background = css(paints, i, "");
      legend.append(make("span", { class: "key" }, swatch, role));
    });
    return;
  }
  const bar = make("canvas", { "aria-hidden": "true" });
  const context = sizeCanvas(bar, 180, 10);
  for (let k = 0; k < 180; k++) {
    const place = Math.round((k / 179) * 255);
    context.fillStyle = `rgb(${paints.bytes.slice(3 * place, 3 * place + 3).join(" ")})`;
    context.fillRect(k, 0, 1.5, 10);
  }
  const [under, over] = paints.beyond;
  const middle = paint.centre === null ? "" : ` (middle ${number(paint.centre)})`;
  const ends = make("span", { class: "key" }, `${under ? "≤ " : ""}${number(paints.low, 2)}`, bar, `${over ? "≥ " : ""}${number(paints.high, 2)}${middle}`);
  const swatch = make("i", { class: "swatch" });
  swatch.style.background = "var(--line)";
  const why = paints.fixed
    ? manifest.compared
      ? "the same colors for A and B"
      : "the same colors on every page"
    : stretched && paint.limits
      ? "stretched to the 2nd and 98th percentile of this network"
      : "from the 2nd to the 98th percentile of this network";
  legend.append(ends, make("span", { class: "key" }, swatch, "not defined"), make("span", { class: "note" }, why));
}
