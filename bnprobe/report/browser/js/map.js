/* The network at a glance: one column per layer, one row per channel, under profiles by depth. */

const MAP = { left: 58, right: 10, height: 270, marks: 14, labels: 128 };

/** Channels of each layer in the order of the map: positions within the layer, the first on top. */
function ranks(layers, order, gamma, values) {
  return layers.map((layer) => {
    const found = Uint32Array.from({ length: layer.n }, (_, c) => c);
    const by = order === "gamma" ? gamma : order === "value" ? values : null;
    if (!by) return found;
    const key = (c) => {
      const v = by[layer.start + c];
      return Number.isNaN(v) ? -Infinity : order === "gamma" ? Math.abs(v) : v;
    };
    return found.sort((a, b) => key(b) - key(a) || a - b);
  });
}

/** The map with its controls, inside `host`. */
function newMap(host, root, store, state, tip) {
  const { manifest } = store;
  const canvas = make("canvas", { "aria-hidden": "true" });
  const svg = d3.create("svg").attr("aria-hidden", "true");
  const board = make("div", {
    class: "board",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "map of layers and channels",
    "aria-label":
      "Map of the network. Arrow keys move between layers and channels, Enter opens a layer, " +
      "Shift with arrows picks a range, Escape drops it.",
  });
  board.append(canvas, svg.node());
  const said = make("p", { class: "visually-hidden", "aria-live": "polite" });
  const legend = make("div", { class: "legend" });
  host.append(board, legend, said);
  let drawn = null;
  let at = null;
  let range = null;

  const profileTop = () => (manifest.profiles.length + 1) * PROFILE_HEIGHT;

  async function draw() {
    const measure = state.measure;
    const [values, gamma] = [await store.column(measure), await store.column("gamma")];
    if (measure !== state.measure) return;
    const layers = state.visible.map((i) => manifest.layers[i]);
    const width = Math.max(board.clientWidth, 240);
    const plot = width - MAP.left - MAP.right;
    const paints = painter(manifest.paints[measure], values, root);
    const order = ranks(layers, state.order, gamma, values);
    const top = profileTop() + MAP.marks;
    drawn = { values, layers, width, plot, paints, order, top, step: plot / Math.max(layers.length, 1) };
    board.style.height = `${top + MAP.height + MAP.labels}px`;
    svg.attr("width", width).attr("height", top + MAP.height + MAP.labels).selectAll("*").remove();
    paintCells();
    drawAround();
    drawLegend();
    drawCursor();
  }

  /** Every pixel of the map by itself: layers are stretched to one height, by nearest rank. */
  function paintCells() {
    const { values, layers, plot, paints, order, step, top, width } = drawn;
    const ratio = window.devicePixelRatio || 1;
    const context = sizeCanvas(canvas, width, top + MAP.height);
    const w = Math.max(Math.round(plot * ratio), 1);
    const h = Math.round(MAP.height * ratio);
    const image = context.createImageData(w, h);
    const nothing = rgb(inks(root).line);
    const paper = rgb(inks(root).paper);
    const gap = step * ratio > 9 ? 1 : 0;
    layers.forEach((layer, i) => {
      const from = Math.round(i * step * ratio);
      const to = Math.min(Math.round((i + 1) * step * ratio) - gap, w);
      for (let y = 0; y < h; y++) {
        const channel = layer.start + order[i][Math.floor((y * layer.n) / h)];
        const place = paints.at(values[channel]);
        let [r, g, b] = place < 0 ? nothing : paints.bytes.subarray(3 * place, 3 * place + 3);
        if (state.picked && !state.picked[channel]) {
          [r, g, b] = faded([r, g, b], paper, 0.22);
        }
        for (let x = from; x < to; x++) {
          const k = 4 * (y * w + x);
          image.data[k] = r;
          image.data[k + 1] = g;
          image.data[k + 2] = b;
          image.data[k + 3] = 255;
        }
      }
    });
    context.putImageData(image, Math.round(MAP.left * ratio), Math.round(top * ratio));
  }

  /** Profiles, marks of findings, names of layers. */
  function drawAround() {
    const { values, layers, plot, step, top } = drawn;
    const x = (i) => (i + 0.5) * step;
    const paint = manifest.paints[state.measure];
    const profiles = [
      { title: `${paint.label}: median and middle half of the channels`, rows: quartiles(layers, values, paint.scale === "log"), ...paint, line: paint.centre },
      ...manifest.profiles.map((p) => ({ ...p, rows: state.visible.map((i) => p.values[i] ?? NaN) })),
    ];
    if (paint.scale === "names") profiles[0] = rolesProfile(layers, values, plot);
    drawStages(layers, step, top);
    profiles.forEach((p, k) => {
      const g = svg.append("g").attr("transform", `translate(${MAP.left},${k * PROFILE_HEIGHT})`);
      drawProfile(g, p.title, p.rows, p.scale, p.line, x, plot, PROFILE_HEIGHT);
    });
    const marks = svg.append("g").attr("transform", `translate(${MAP.left},${top - 3})`);
    layers.forEach((layer, i) => {
      const severity = worst(layer.findings);
      if (severity) marks.append("path").attr("class", `mark ${severity}`).attr("d", "M-3.5,-7h7l-3.5,7z").attr("transform", `translate(${x(i)},0)`);
    });
    const side = svg.append("g").attr("transform", `translate(${MAP.left - 6},${top})`);
    const ends = { gamma: ["large |γ|", "small |γ|"], value: ["high", "low"], channel: ["channel 0", "last"] }[state.order];
    side.append("text").attr("class", "tick").attr("y", 9).text(ends[0]);
    side.append("text").attr("class", "tick").attr("y", MAP.height - 2).text(ends[1]);
    drawNames(layers, x, step, top);
    svg.append("g").attr("class", "cursor");
  }

  /** Lines where the stage, the first part of the path that varies, changes. */
  function drawStages(layers, step, top) {
    const paths = layers.map((layer) => layer.name.split("."));
    const part = d3.range(8).find((d) => new Set(paths.map((p) => p.slice(0, d + 1).join("."))).size > 1) ?? 0;
    const stages = paths.map((p) => p.slice(0, part + 1).join("."));
    const bounds = d3.range(1, stages.length).filter((i) => stages[i] !== stages[i - 1]);
    if (bounds.length > stages.length / 2) return;
    for (const i of bounds) {
      const x = MAP.left + i * step - 0.5;
      svg.append("line").attr("class", "grid").attr("x1", x).attr("x2", x).attr("y1", 14).attr("y2", top);
      svg.append("line").attr("class", "stage-end").attr("x1", x).attr("x2", x).attr("y1", top).attr("y2", top + MAP.height);
    }
  }

  function rolesProfile(layers, values) {
    const dead = layers.map((layer) => {
      const mine = values.subarray(layer.start, layer.start + layer.n);
      return mine.reduce((n, v) => n + (v === 0), 0) / layer.n;
    });
    return { title: "share of dead channels", rows: dead, scale: "share", line: null };
  }

  /** The beginning that all paths share, which tells nothing apart. */
  function commonPath() {
    const paths = manifest.layers.map((layer) => layer.name.split("."));
    let n = 0;
    while (paths.length > 1 && paths.every((p) => p.length > n + 1 && p[n] === paths[0][n])) n += 1;
    return paths[0].slice(0, n).join(".").length + (n ? 1 : 0);
  }

  function drawNames(layers, x, step, top) {
    const shared = commonPath();
    const every = Math.max(Math.ceil(12 / step), 1);
    const g = svg.append("g").attr("transform", `translate(${MAP.left},${top + MAP.height + 6})`);
    layers.forEach((layer, i) => {
      if (i % every) return;
      g.append("text")
        .attr("class", "name")
        .attr("transform", `translate(${x(i)},0) rotate(-90)`)
        .attr("dy", ".32em")
        .text(shorten(layer.title.slice(shared), 19));
    });
    if (!layers.length) g.append("text").attr("class", "title").attr("y", -MAP.height / 2).text("No layer matches the filter.");
  }

  function drawLegend() {
    const { paints } = drawn;
    const paint = manifest.paints[state.measure];
    legend.replaceChildren(make("span", { class: "title" }, paint.label));
    if (paints.names) {
      manifest.roleLabels.forEach((role, i) => {
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
    legend.append(
      make("span", { class: "key" }, `${under ? "≤ " : ""}${number(paints.low, 2)}`, bar, `${over ? "≥ " : ""}${number(paints.high, 2)}`),
    );
    if (under || over) legend.append(make("span", { class: "note" }, "colors end at the 2nd and 98th percentile"));
    const swatch = make("i", { class: "swatch" });
    swatch.style.background = "var(--line)";
    legend.append(make("span", { class: "key" }, swatch, "not defined"));
  }

  /** Column and channel under a place of the board, or null. */
  function cell(px, py) {
    if (!drawn || !drawn.layers.length) return null;
    const column = Math.floor((px - MAP.left) / drawn.step);
    if (column < 0 || column >= drawn.layers.length || py < 0 || py > drawn.top + MAP.height) return null;
    const layer = drawn.layers[column];
    const down = (py - drawn.top) / MAP.height;
    const rank = down < 0 ? -1 : Math.min(Math.floor(down * layer.n), layer.n - 1);
    return { column, rank };
  }

  const channelAt = ({ column, rank }) => (rank < 0 ? -1 : drawn.order[column][rank]);

  function words(place) {
    const layer = drawn.layers[place.column];
    const channel = channelAt(place);
    const lines = [shorten(layer.title, 60)];
    if (channel >= 0) {
      const value = drawn.values[layer.start + channel];
      const said = drawn.paints.names ? (manifest.roleLabels[value] ?? MISSING) : number(value);
      lines.push(`channel ${channel} (0 to ${(layer.n - 1).toLocaleString("en-US")})`, `${manifest.paints[state.measure].label}: ${said}`);
    } else {
      lines.push(count(layer.n, "channel"));
      for (const p of manifest.profiles) lines.push(`${p.title}: ${number(p.values[state.visible[place.column]])}`);
    }
    layer.findings.slice(0, 3).forEach((f) => lines.push(`${f.severity}: ${shorten(f.says, 90)}`));
    return lines;
  }

  function drawCursor() {
    const g = svg.select("g.cursor");
    g.selectAll("*").remove();
    if (!drawn) return;
    const open = state.visible.indexOf(state.layer);
    if (open >= 0) {
      g.append("rect").attr("class", "open").attr("x", MAP.left + open * drawn.step).attr("y", drawn.top - 1).attr("width", drawn.step).attr("height", MAP.height + 2);
    }
    if (at) {
      const x = MAP.left + (at.column + 0.5) * drawn.step;
      g.append("line").attr("class", "hair").attr("x1", x).attr("x2", x).attr("y1", 14).attr("y2", drawn.top);
      if (at.rank >= 0) {
        const layer = drawn.layers[at.column];
        const tall = MAP.height / layer.n;
        g.append("rect").attr("class", "hand").attr("x", MAP.left + at.column * drawn.step).attr("width", drawn.step)
          .attr("y", drawn.top + at.rank * tall - (tall < 3 ? 1.5 : 0)).attr("height", Math.max(tall, 3));
      }
    }
    if (range) {
      const [c0, c1] = [Math.min(range.from.column, range.to.column), Math.max(range.from.column, range.to.column)];
      const [y0, y1] = heights(range);
      g.append("rect").attr("class", "brushed").attr("x", MAP.left + c0 * drawn.step).attr("width", (c1 - c0 + 1) * drawn.step)
        .attr("y", drawn.top + y0 * MAP.height).attr("height", Math.max((y1 - y0) * MAP.height, 1));
    }
  }

  /** Upper and lower end of a range, as shares of the map's height. */
  function heights({ from, to }) {
    const spans = [from, to].map((p) => {
      const n = drawn.layers[p.column].n;
      const rank = Math.max(p.rank, 0);
      return [rank / n, (rank + 1) / n];
    });
    return [Math.min(spans[0][0], spans[1][0]), Math.max(spans[0][1], spans[1][1])];
  }

  function pickRange() {
    const picked = new Uint8Array(store.nChannels);
    const [c0, c1] = [Math.min(range.from.column, range.to.column), Math.max(range.from.column, range.to.column)];
    const [y0, y1] = heights(range);
    for (let i = c0; i <= c1; i++) {
      const layer = drawn.layers[i];
      for (let k = Math.floor(y0 * layer.n + 1e-6); k < Math.max(y1 * layer.n - 1e-6, y0 * layer.n + 1e-6); k++) picked[layer.start + drawn.order[i][k]] = 1;
    }
    state.set({ picked });
  }

  function local(event) {
    const box = board.getBoundingClientRect();
    return cell(event.clientX - box.left, event.clientY - box.top);
  }

  let pressed = null;
  board.addEventListener("pointermove", (event) => {
    at = local(event);
    if (pressed && at && at.rank >= 0 && (at.column !== pressed.column || Math.abs(event.clientY - pressed.y) > 4)) {
      range = { from: pressed, to: at };
    }
    drawCursor();
    if (at && !range) tip.show(event.clientX, event.clientY, words(at));
    else tip.hide();
  });
  board.addEventListener("pointerleave", () => {
    if (!pressed) at = null;
    drawCursor();
    tip.hide();
  });
  board.addEventListener("pointerdown", (event) => {
    const place = local(event);
    if (event.button || !place) return;
    pressed = { ...place, y: event.clientY };
    range = null;
    if (event.pointerType === "mouse" && place.rank >= 0) board.setPointerCapture(event.pointerId);
  });
  board.addEventListener("pointerup", (event) => {
    const place = local(event);
    if (range) pickRange();
    else if (pressed && place) open(place);
    pressed = null;
    drawCursor();
  });
  board.addEventListener("pointercancel", () => {
    pressed = range = null;
    drawCursor();
  });

  function open(place) {
    tip.hide();
    state.set({ layer: state.visible[place.column], channel: channelAt(place) });
  }

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [0, -10], PageDown: [0, 10] };
  board.addEventListener("keydown", (event) => {
    if (!drawn || !drawn.layers.length) return;
    if (event.key === "Escape") {
      range = null;
      state.set({ picked: null });
    } else if (event.key === "Enter" || event.key === " ") {
      if (at) open(at);
    } else if (MOVES[event.key]) {
      const before = at && at.column < drawn.layers.length ? at : { column: Math.max(state.visible.indexOf(state.layer), 0), rank: 0 };
      const [dx, dy] = at ? MOVES[event.key] : [0, 0];
      const column = Math.max(0, Math.min(drawn.layers.length - 1, before.column + dx));
      const was = Math.max(before.rank, 0) / drawn.layers[before.column].n;
      const n = drawn.layers[column].n;
      const rank = dx ? Math.floor(was * n + 1e-9) : Math.max(0, Math.min(n - 1, before.rank + dy));
      at = { column, rank };
      range = event.shiftKey ? { from: range ? range.from : before, to: at } : null;
      if (range) pickRange();
      const box = board.getBoundingClientRect();
      tip.show(box.left + MAP.left + (column + 0.5) * drawn.step, box.top + drawn.top + (rank / n) * MAP.height, words(at));
      said.textContent = words(at).join(", ");
    } else return;
    event.preventDefault();
    drawCursor();
  });
  board.addEventListener("blur", tip.hide);

  state.on("measure order visible theme size", () => {
    at = range = null;
    draw();
  });
  state.on("picked", () => {
    if (!state.picked) range = null;
    if (drawn) paintCells();
    drawCursor();
  });
  state.on("layer", drawCursor);
  return draw();
}
