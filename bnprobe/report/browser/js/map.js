/* The network at a glance: one column per layer, one row per channel, under the measure's profile by depth. */

const MAP = { left: 58, right: 10, height: 290, marks: 16 + CAP, letter: 6.1 };

/** The map with its controls, inside `host`. */
function newMap(host, root, store, state, tip) {
  const { manifest } = store;
  const canvas = make("canvas", { "aria-hidden": "true" });
  const svg = d3.create("svg").attr("aria-hidden", "true");
  const still = svg.append("g");
  const moving = svg.append("g");
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
  const reading = newReading(
    (dx, dy) => move(dx, dy, false),
    () => at && open(at),
  );
  host.append(board, reading.element, legend, said);
  const names = shortNames();
  let drawn = null;
  let at = null;
  let range = null;

  async function draw() {
    const { measure, order } = state;
    const [values, gamma] = [await store.column(measure), await store.column(manifest.gamma)];
    if (measure !== state.measure || order !== state.order) return;
    const layers = state.visible.map((i) => manifest.layers[i]);
    const width = Math.max(board.clientWidth, 240);
    const plot = width - MAP.left - MAP.right;
    const top = PROFILE_HEIGHT + MAP.marks;
    const bottom = top + MAP.height + CAP + 12 + MAP.letter * (d3.max(layers, (layer) => names.get(layer).length + grouped(String(layer.n)).length + 1) ?? 0);
    drawn = {
      ...{ values, layers, names, width, plot, top, left: MAP.left, height: MAP.height },
      paints: painter(manifest.paints[measure], values, root, state.stretched),
      order: ranks(layers, order, gamma, values),
      most: extremes(layers, values),
      step: plot / Math.max(layers.length, 1),
    };
    board.style.height = `${bottom}px`;
    Object.assign(board.dataset, { left: MAP.left, top, plot, tall: MAP.height });
    svg.attr("width", width).attr("height", bottom);
    paintCells(canvas, drawn, state, root);
    drawStill();
    drawMoving();
    drawLegend(legend, drawn, manifest, manifest.paints[measure], state.stretched);
    drawCursor();
  }

  /** Stages, marks of findings and names of layers, which another measure leaves as they are. */
  function drawStill() {
    const { layers, width, step, top } = drawn;
    const key = `${width} ${state.visible}`;
    if (still.attr("data-key") === key) return;
    still.attr("data-key", key).selectAll("*").remove();
    const x = (i) => (i + 0.5) * step;
    drawStages(layers, step, top);
    const marks = still.append("g").attr("transform", `translate(${MAP.left},${top - CAP - 3})`);
    layers.forEach((layer, i) => {
      const severity = worst(layer.findings);
      if (severity) marks.append("path").attr("class", `mark ${severity}`).attr("d", "M-3.5,-7h7l-3.5,7z").attr("transform", `translate(${x(i)},0)`);
    });
    drawNames(layers, x, step, top);
  }

  /** The profile, and what is at the ends of a column. */
  function drawMoving() {
    const { values, layers, plot, step, top, paints } = drawn;
    const x = (i) => (i + 0.5) * step;
    const paint = manifest.paints[state.measure];
    moving.selectAll("*").remove();
    const profile = moving.append("g").attr("transform", `translate(${MAP.left},0)`);
    if (paints.names) drawProfile(profile, "share of dead channels", deadShares(layers, values), "even", null, [0, 0.25], x, plot);
    else {
      const rows = quartiles(layers, values, paint.scale === "log", state.order === "value" ? drawn.order : null);
      drawProfile(profile, `${paint.label}${plot > 500 ? ": median and middle half of the channels" : ""}`, rows, paint.scale, paint.centre, [paints.low, paints.high], x, plot);
    }
    const side = moving.append("g").attr("transform", `translate(${MAP.left - 6},${top})`);
    const ends = { gamma: ["large |γ|", "small |γ|"], value: ["high", "low"], channel: ["channel 0", "last"] }[state.order];
    side.append("text").attr("class", "tick").attr("y", 12).text(ends[0]);
    side.append("text").attr("class", "tick").attr("y", MAP.height - 5).text(ends[1]);
    moving.append("g").attr("class", "cursor");
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
      still.append("line").attr("class", "grid").attr("x1", x).attr("x2", x).attr("y1", 14).attr("y2", top);
      still.append("line").attr("class", "stage-end").attr("x1", x).attr("x2", x).attr("y1", top - CAP).attr("y2", top + MAP.height + CAP);
    }
  }

  /** The name of each layer by its role in a transformer, or without the beginning that all share, which tells nothing apart. */
  function shortNames() {
    const paths = manifest.layers.map((layer) => layer.name.split("."));
    let n = 0;
    while (paths.length > 1 && paths.every((p) => p.length > n + 1 && p[n] === paths[0][n])) n += 1;
    const shared = paths[0].slice(0, n).join(".").length + (n ? 1 : 0);
    return new Map(manifest.layers.map((layer) => [layer, layer.short || shortPath(layer.title.slice(shared), 20)]));
  }

  /** Names with the number of channels, as many as there is room for. */
  function drawNames(layers, x, step, top) {
    const every = Math.max(Math.ceil(12 / step), 1);
    const g = still.append("g").attr("transform", `translate(${MAP.left},${top + MAP.height + CAP + 5})`);
    layers.forEach((layer, i) => {
      if (i % every) return;
      const text = g.append("text").attr("class", "name").attr("transform", `translate(${x(i)},0) rotate(-90)`).attr("dy", ".32em");
      text.append("tspan").text(drawn.names.get(layer));
      text.append("tspan").attr("class", "many").text(` ${grouped(String(layer.n))}`);
    });
    if (!layers.length) g.append("text").attr("class", "title").attr("y", -MAP.height / 2).text("No layer matches the filter.");
  }

  /** Column and channel under a place of the board, or null; in the bands above and below, the extremes. */
  function cell(px, py) {
    if (!drawn || !drawn.layers.length) return null;
    const column = Math.floor((px - MAP.left) / drawn.step);
    const down = py - drawn.top;
    if (column < 0 || column >= drawn.layers.length || py < 0 || down > MAP.height + CAP + 2) return null;
    if (down < -CAP) return { column, rank: -1 };
    const end = down < 0 ? 0 : down > MAP.height ? 1 : -1;
    if (end < 0) return { column, rank: rankAt(down / MAP.height, drawn.layers[column].n, MAP.height) };
    return { column, rank: drawn.order[column].indexOf(drawn.most[column][end]) };
  }

  const channelAt = ({ column, rank }) => (rank < 0 ? -1 : drawn.order[column][rank]);

  function words(place) {
    const layer = drawn.layers[place.column];
    const channel = channelAt(place);
    const lines = [shorten(layer.title, 60)];
    if (channel >= 0) {
      const value = drawn.values[layer.start + channel];
      const read = drawn.paints.names ? (manifest.roleLabels[value] ?? MISSING) : number(value);
      lines.push(`channel ${channel} (0 to ${(layer.n - 1).toLocaleString("en-US")})`, `${manifest.paints[state.measure].label}: ${read}`);
    } else lines.push(count(layer.n, "channel"));
    layer.findings.slice(0, 3).forEach((f) => lines.push(`${f.severity}: ${shorten(f.says, 90)}`));
    if (layer.findings.length > 3) lines.push(`and ${count(layer.findings.length - 3, "more finding")}`);
    return lines;
  }

  function drawCursor() {
    const g = svg.select("g.cursor");
    g.selectAll("*").remove();
    if (!drawn) return;
    const frame = (kind, column, y, tall, wide = 1) =>
      g.append("rect").attr("class", kind).attr("x", MAP.left + column * drawn.step).attr("width", wide * drawn.step)
        .attr("y", drawn.top + y).attr("height", tall);
    for (const { layer } of state.pins) {
      const column = state.visible.indexOf(layer);
      if (column >= 0) frame("pinned", column, -1, MAP.height + 2);
    }
    const opened = state.visible.indexOf(state.layer);
    if (opened >= 0) frame("open", opened, -1, MAP.height + 2);
    if (at) {
      const x = MAP.left + (at.column + 0.5) * drawn.step;
      g.append("line").attr("class", "hair").attr("x1", x).attr("x2", x).attr("y1", 14).attr("y2", drawn.top - CAP);
      if (at.rank >= 0) {
        const tall = MAP.height / drawn.layers[at.column].n;
        frame("hand", at.column, at.rank * tall - (tall < 3 ? 1.5 : 0), Math.max(tall, 3));
      }
    }
    if (range) {
      const { c0, c1, y0, y1 } = bounds(range);
      frame("brushed", c0, y0 * MAP.height, Math.max((y1 - y0) * MAP.height, 1), c1 - c0 + 1);
    }
  }

  /** First and last column of a range, its upper and lower end as shares of the map's height. */
  function bounds({ from, to }) {
    const spans = [from, to].map((p) => {
      const n = drawn.layers[p.column].n;
      const rank = Math.max(p.rank, 0);
      return [rank / n, (rank + 1) / n];
    });
    return {
      c0: Math.min(from.column, to.column),
      c1: Math.max(from.column, to.column),
      y0: Math.min(spans[0][0], spans[1][0]),
      y1: Math.max(spans[0][1], spans[1][1]),
    };
  }

  function pickRange() {
    const picked = new Uint8Array(store.nChannels);
    const { c0, c1, y0, y1 } = bounds(range);
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
    if (at && !range && event.pointerType !== "touch") tip.show(event.clientX, event.clientY, words(at));
    else tip.hide();
  });
  board.addEventListener("pointerleave", (event) => {
    if (!pressed && event.pointerType !== "touch") at = null;
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
    else if (pressed && place && event.pointerType === "touch") touch(place);
    else if (pressed && place) open(place);
    pressed = null;
    drawCursor();
  });
  board.addEventListener("pointercancel", () => {
    pressed = range = null;
    drawCursor();
  });

  /** A finger covers what it points at: the value is told first, and a button opens the layer. */
  function touch(place) {
    at = place;
    reading.show(words(place));
  }

  function open(place) {
    tip.hide();
    state.set({ layer: state.visible[place.column], channel: channelAt(place) });
  }

  /** One step of the keyboard, or of the buttons below the map. */
  function move(dx, dy, extend) {
    const before = at && at.column < drawn.layers.length ? at : { column: Math.max(state.visible.indexOf(state.layer), 0), rank: 0 };
    const [right, down] = at ? [dx, dy] : [0, 0];
    const column = Math.max(0, Math.min(drawn.layers.length - 1, before.column + right));
    const was = Math.max(before.rank, 0) / drawn.layers[before.column].n;
    const n = drawn.layers[column].n;
    const rank = right ? Math.floor(was * n + 1e-9) : Math.max(0, Math.min(n - 1, before.rank + down));
    at = { column, rank };
    range = extend ? { from: range ? range.from : before, to: at } : null;
    if (range) pickRange();
    said.textContent = words(at).join(", ");
    if (reading.shown()) reading.show(words(at));
    drawCursor();
    return rank / n;
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
      const down = move(...MOVES[event.key], event.shiftKey);
      const box = board.getBoundingClientRect();
      tip.show(box.left + MAP.left + (at.column + 0.5) * drawn.step, box.top + drawn.top + down * MAP.height, words(at));
    } else return;
    event.preventDefault();
    drawCursor();
  });
  board.addEventListener("blur", tip.hide);

  state.on("measure order stretched visible theme size", () => {
    at = range = null;
    reading.hide();
    draw();
  });
  state.on("picked", () => {
    if (!state.picked) range = null;
    if (drawn) paintCells(canvas, drawn, state, root);
    drawCursor();
  });
  state.on("layer pins opened", drawCursor);
  return draw();
}

/** Below the map on a touch screen: what was tapped, buttons to move from there, and one that opens it. */
function newReading(move, open) {
  const words = make("p", { role: "status" });
  const step = (sign, name, dx, dy) => make("button", { type: "button", "aria-label": name, onclick: () => move(dx, dy) }, sign);
  const steps = [step("←", "previous layer", -1, 0), step("→", "next layer", 1, 0), step("↑", "channel above", 0, -1), step("↓", "channel below", 0, 1)];
  const element = make("div", { class: "reading", hidden: true }, words, make("div", { class: "tools" }, ...steps, make("button", { type: "button", class: "strong", onclick: open }, "open")));
  function show([title, ...lines]) {
    words.replaceChildren(make("b", {}, title), ...lines.map((line) => make("span", {}, line)));
    element.hidden = false;
  }
  return { element, show, shown: () => !element.hidden, hide: () => (element.hidden = true) };
}
