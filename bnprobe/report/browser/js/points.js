/* Channels of one layer as points: hover names one, click opens it, dragging picks many. */

const DOT = 3.2;

/** Channels above which points are counted in hexagons, as they would be a slab. */
const MOST_POINTS = 3000;

/** Crosses of more points than these would be a mat: only those of picked and opened channels are drawn. */
const MOST_CROSSES = 40;

/** Points counted in hexagons of this radius: [{ x, y, n }]. */
function hexagons(places, radius) {
  const [dx, dy] = [Math.sqrt(3) * radius, 1.5 * radius];
  const found = new Map();
  for (const { px, py } of places) {
    const candidates = [Math.floor(py / dy), Math.floor(py / dy) + 1].map((j) => {
      const i = Math.round(px / dx - (j & 1) / 2);
      return [(i + (j & 1) / 2) * dx, j * dy];
    });
    const [x, y] = d3.least(candidates, ([cx, cy]) => (cx - px) ** 2 + (cy - py) ** 2);
    const key = `${x.toFixed(2)} ${y.toFixed(2)}`;
    if (!found.has(key)) found.set(key, { x, y, n: 0 });
    found.get(key).n += 1;
  }
  return [...found.values()];
}

/**
 * A scatter plot. `spec.prepare(layer, columns)` returns null where the layer has nothing to show, else
 *   xs, ys        values per channel
 *   x, y          scales without a range
 *   labels        of the axes
 *   colour(c)     of a channel, or null for the ink of what was measured
 *   words(c)      lines for the pointer
 *   under(g, x, y, width, height)   what lies below the points
 *   bars(c)       half lengths [dx, dy] of a confidence cross, or null
 *   note          a sentence below
 *   key           what the look of a single point says, where there are no hexagons
 *   format        of the ticks, see drawAxes
 */
function newScatter(store, state, tip, open, spec) {
  const margin = { top: 24, right: 14, bottom: 42, left: 52 };
  const plot = newPlot(spec.title, 300, margin, spec.description);
  let brushing = false;

  let made = null;
  let others = [];

  /** The layer, and the layers that are pinned beside it. */
  async function prepare(layer, columns) {
    made = spec.prepare(layer, columns);
    plot.element.hidden = !made;
    const { layers } = store.manifest;
    const pins = state.pins.map((pin, k) => ({ ...pin, colour: PINS[k] }));
    const whole = pins.filter((pin) => pin.channel < 0 && layers[pin.layer] !== layer);
    const all = made && pins.length ? await store.several(store.names) : null;
    others = whole.flatMap((pin) => {
      const same = made && spec.prepare(layers[pin.layer], slices(all, layers[pin.layer]));
      return same ? [{ xs: same.xs, ys: same.ys, colour: pin.colour }] : [];
    });
    for (const pin of pins.filter((one) => one.channel >= 0 && made)) {
      const same = spec.prepare(layers[pin.layer], slices(all, layers[pin.layer]));
      if (same) others.push({ xs: [same.xs[pin.channel]], ys: [same.ys[pin.channel]], colour: pin.colour, ring: true });
    }
  }

  function draw(layer) {
    if (!made) return;
    const { context, inner, width, height } = plot.size();
    const x = made.x.range([0, width]);
    const y = made.y.range([height, 0]);
    plot.heading.textContent = made.title ?? spec.title;
    const places = [];
    let outside = 0;
    for (let c = 0; c < layer.n; c++) {
      const [px, py] = [x(made.xs[c]), y(made.ys[c])];
      if (!Number.isFinite(px) || !Number.isFinite(py)) continue;
      if (px < -1 || px > width + 1 || py < -1 || py > height + 1) outside += 1;
      else places.push({ c, px, py });
    }
    const clip = inner.append("g").attr("class", "under");
    made.under?.(clip, x, y, width, height);
    drawAxes(inner, x, y, width, height, made.labels, made.format);
    const counted = places.length > MOST_POINTS;
    if (counted) paintHexagons(context, places);
    paint(context, counted ? places.filter((p) => p.c === state.channel || state.picked?.[layer.start + p.c]) : places, layer, x, y, [width, height]);
    paintOthers(context, x, y, width, height);
    const key = counted ? "Hexagons: the stronger the color, the more channels" : made.key;
    const notes = [made.note, key, outside ? `${count(outside, "channel")} beyond the frame` : ""];
    plot.note.textContent = notes.filter(Boolean).join(". ");
    brush(inner, places, made, layer, width, height);
  }

  function paint(context, places, layer, x, y, frame) {
    const ink = inks(plot.element);
    const picked = state.picked && pickedIn(state.picked, layer) ? state.picked : null;
    const order = d3.sort(places, (p) => (picked && picked[layer.start + p.c] ? 1 : 0), (p) => (p.c === state.channel ? 1 : 0));
    const size = layer.n > 600 ? 2.4 : DOT;
    context.save();
    context.beginPath();
    context.rect(-4, -8, frame[0] + 8, frame[1] + 12);
    context.clip();
    for (const { c, px, py } of order) {
      const faint = picked && !picked[layer.start + c];
      context.globalAlpha = faint ? 0.15 : 0.9;
      const half = made.bars?.(c);
      if (half && (c === state.channel || (!faint && (layer.n <= MOST_CROSSES || picked)))) {
        context.strokeStyle = ink.muted;
        context.lineWidth = 0.8;
        context.strokeRect(x(made.xs[c] - half[0]), py, x(made.xs[c] + half[0]) - x(made.xs[c] - half[0]), 0);
        context.strokeRect(px, y(made.ys[c] + half[1]), 0, y(made.ys[c] - half[1]) - y(made.ys[c] + half[1]));
      }
      context.beginPath();
      context.arc(px, py, size, 0, 2 * Math.PI);
      context.fillStyle = made.colour?.(c) ?? ink.measured;
      if (made.hollow?.(c)) {
        context.strokeStyle = ink.measured;
        context.lineWidth = 1;
        context.fillStyle = ink.paper;
      } else {
        context.strokeStyle = ink.muted;
        context.lineWidth = 0.4;
      }
      context.fill();
      context.stroke();
      if (c === state.channel) {
        context.globalAlpha = 1;
        context.beginPath();
        context.arc(px, py, size + 3.5, 0, 2 * Math.PI);
        context.strokeStyle = ink.ink;
        context.lineWidth = 1.6;
        context.stroke();
      }
    }
    context.restore();
  }

  function paintHexagons(context, places) {
    const found = hexagons(places, 5);
    const most = Math.log(1 + d3.max(found, (h) => h.n));
    context.fillStyle = inks(plot.element).measured;
    for (const { x, y, n } of found) {
      context.globalAlpha = 0.12 + 0.88 * (Math.log(1 + n) / most);
      context.beginPath();
      for (let k = 0; k < 6; k++) context.lineTo(x + 5 * Math.sin((k * Math.PI) / 3), y + 5 * Math.cos((k * Math.PI) / 3));
      context.fill();
    }
    context.globalAlpha = 1;
  }

  /** Pinned layers as hollow points in their colours, pinned channels as rings. */
  function paintOthers(context, x, y, width, height) {
    for (const { xs, ys, colour, ring } of others) {
      context.strokeStyle = colour;
      context.lineWidth = ring ? 2.2 : 1.2;
      for (let c = 0; c < xs.length; c++) {
        const [px, py] = [x(xs[c]), y(ys[c])];
        if (!(px >= -1 && px <= width + 1 && py >= -1 && py <= height + 1)) continue;
        context.beginPath();
        context.arc(px, py, ring ? DOT + 2.5 : DOT - 0.4, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  function nearest(places, px, py, reach = 12) {
    const i = d3.leastIndex(places, (p) => (p.px - px) ** 2 + (p.py - py) ** 2);
    const p = i >= 0 ? places[i] : null;
    return p && Math.hypot(p.px - px, p.py - py) <= reach ? p : null;
  }

  function brush(inner, places, made, layer, width, height) {
    const behaviour = d3
      .brush()
      .extent([[0, 0], [width, height]])
      .on("start", () => (brushing = true))
      .on("end", (event) => {
        brushing = false;
        if (!event.sourceEvent) return;
        if (!event.selection) {
          const [px, py] = d3.pointer(event.sourceEvent, inner.node());
          const hit = nearest(places, px, py);
          if (hit) open(hit.c);
          else if (state.picked) state.set({ picked: null });
          return;
        }
        const [[x0, y0], [x1, y1]] = event.selection;
        const picked = new Uint8Array(state.nChannels);
        for (const p of places) if (p.px >= x0 && p.px <= x1 && p.py >= y0 && p.py <= y1) picked[layer.start + p.c] = 1;
        state.set({ picked });
      });
    inner
      .append("g")
      .attr("class", "brush")
      .call(behaviour)
      .on("pointermove", (event) => {
        const hit = brushing ? null : nearest(places, ...d3.pointer(event, inner.node()));
        if (hit) tip.show(event.clientX, event.clientY, made.words(hit.c));
        else tip.hide();
      })
      .on("pointerleave", tip.hide);
  }

  plot.rows = () => [
    ["channel", made.labels.x, made.labels.y],
    ...Array.from(made.xs, (x, c) => [c, x, made.ys[c]]),
  ];

  return { element: plot.element, plots: [plot], prepare, measure: plot.measure, draw };
}

/** Limits of an axis that a few outliers cannot take over. */
function reachOf(values, share = 0.995, room = 1.12) {
  const sorted = sortedFinite(Float64Array.from(values, Math.abs));
  const most = sorted.length ? sorted[sorted.length - 1] : 1;
  const robust = quantile(sorted, share) * room;
  return (most <= 1.6 * robust ? most * room : robust) || 1;
}
