/* One layer of a comparison: distributions of A with those of B over them, and what moved. */

const OVERLAID = 7;

/** The store as one side sees it: its own names without their ends. */
function sideOf(store, side) {
  return {
    manifest: store.manifest,
    bytes: (name) => store.bytes(`${name}_${side}`),
    async several(names) {
      const found = await store.several(names.map((name) => `${name}_${side}`));
      return Object.fromEntries(names.map((name) => [name, found[`${name}_${side}`]]));
    },
  };
}

function columnsOf(columns, side) {
  return Object.fromEntries(["gamma", "beta", "running_mean", "running_var", "pre_mean", "pre_var"].map((name) => [name, columns[`${name}_${side}`]]));
}

/** The opened and picked channels, else those that changed most. */
function changedChannels(layer, columns, state, sort) {
  const picked = [];
  if (state.picked) for (let c = 0; c < layer.n; c++) if (state.picked[layer.start + c]) picked.push(c);
  const first = state.channel >= 0 ? [state.channel] : [];
  const by = columns[sort.find((name) => columns[name]?.some(Number.isFinite))];
  const order = picked.length ? picked : d3.sort(d3.range(layer.n), (c) => -(by?.[c] || 0));
  return [...new Set([...first, ...order])].slice(0, OVERLAID);
}

function comparedPanels(store, state, tip, open) {
  const scatters = (store.manifest.apart ? ["gamma", "beta", "running_var", "fires"].map((name) => sortedSpec(store, name)) : [
    changeSpec("What moved in the inputs", "pre_shift", "pre_ratio"),
    changeSpec("What moved in the running statistics", "running_shift", "running_ratio"),
    againstSpec("gamma", "γ"),
    againstSpec("beta", "β"),
  ]).map((spec) => newScatter(store, state, tip, open, spec));
  return { plots: store.manifest.apart ? [together(scatters)] : [newOverlay(store, state, tip, open), together(scatters)], rest: [] };
}

/** Inputs and outputs of the channels that changed most: A filled, B as a line over it. */
function newOverlay(store, state, tip, open) {
  const margin = { top: 8, right: 12, bottom: 40, left: 74 };
  const before = newPlot("Before the norm: A filled, B line", 320, margin, "Distributions of some channels before the norm, on both sides.");
  const after = newPlot("After the norm: A filled, B line", 320, margin, "Distributions of some channels after the norm, on both sides.");
  const element = make("div", { class: "pair" }, before.element, after.element);
  let [shown, pairs] = [[], []];

  async function prepare(layer, columns) {
    shown = changedChannels(layer, columns, state, store.manifest.sort);
    pairs = await Promise.all(shown.map(async (c) => [
      await curvesOf(sideOf(store, "a"), layer, columnsOf(columns, "a"), c),
      await curvesOf(sideOf(store, "b"), { ...layer, ...layer.b }, columnsOf(columns, "b"), c),
    ]));
    element.hidden = !store.manifest.edges.length || !pairs.some(([a, b]) => a.pre && b.pre);
  }

  function draw(layer, columns) {
    if (element.hidden) return;
    const unit = (c) => [columns.pre_mean_a?.[c] ?? NaN, Math.sqrt((columns.pre_var_a?.[c] ?? NaN) + layer.eps)];
    rows(before, "pre", [-5, 5], (c) => { const [mean, sd] = unit(c); return (v) => (v - mean) / sd; }, "σ of A from the mean of A");
    const ends = pairs.flatMap((pair) => pair.flatMap(({ beta, gamma }) => [beta - 4 * Math.abs(gamma), beta + 4 * Math.abs(gamma)]));
    rows(after, "post", [d3.min(ends), d3.max(ends)], () => (v) => v, "output of the norm");
    before.note.textContent = "Blue: A. Orange: B. The channels that changed most; click any dot below to add one.";
    for (const [plot, name] of [[before, "pre"], [after, "post"]]) plot.rows = () => tableOf(name);
  }

  function rows(plot, name, domain, unitOf, words) {
    const { context, inner, width, height } = plot.size();
    const ink = inks(element);
    const x = d3.scaleLinear().domain(domain).range([0, width]);
    const step = height / (shown.length + 1);
    pairs.forEach((pair, i) => {
      const base = (i + 1.9) * step - 0.4 * step;
      const found = pair.map((curves) => (curves[name] ? bars(curves[name], store.manifest.edges, unitOf(shown[i])).filter((bar) => Number.isFinite(bar[2])) : []));
      const most = d3.max(found.flat(), (bar) => bar[2]) || 1;
      found.forEach((some, side) => {
        const path = (side ? d3.line() : d3.area().y0(base)).x((bar) => Math.max(0, Math.min(width, x((bar[0] + bar[1]) / 2))))[side ? "y" : "y1"]((bar) => base - (bar[2] / most) * step * 1.5);
        context.beginPath();
        path.context(context)(some.filter((bar) => x(bar[1]) > 0 && x(bar[0]) < width));
        context.globalAlpha = side ? 1 : 0.6;
        context.fillStyle = ink.measured;
        context.strokeStyle = ink.expected;
        context.lineWidth = 1.4;
        if (side) context.stroke();
        else context.fill();
      });
      context.globalAlpha = 1;
      inner.append("text").attr("class", `ridge${shown[i] === state.channel ? " strong" : ""}`).attr("x", -6).attr("y", base - 3).text(`channel ${shown[i]}`).on("click", () => open(shown[i]));
    });
    drawAxes(inner, x, null, width, height, { x: words });
  }

  function tableOf(name) {
    const found = [["channel", "side", "from", "to", "density"]];
    pairs.forEach((pair, i) => pair.forEach((curves, side) => {
      if (curves[name]) for (const bar of bars(curves[name], store.manifest.edges, (v) => v)) if (bar[2] > 0) found.push([shown[i], "AB"[side], ...bar]);
    }));
    return found;
  }

  function measure() {
    before.measure();
    after.measure();
  }

  return { element, plots: [before, after], prepare, measure, draw };
}

/** Shift of the mean from A to B against the ratio of standard deviations. */
function changeSpec(title, shiftName, ratioName) {
  return {
    title,
    description: `${title}: channels by the shift of their mean from A to B and the ratio of standard deviations.`,
    prepare(layer, columns) {
      const [shift, ratio] = [columns[shiftName], columns[ratioName]];
      if (!shift?.some((v) => Math.abs(v) > 1e-9) && !ratio?.some((v) => Math.abs(v - 1) > 1e-9)) return null;
      const reach = Math.max(reachOf(shift), 0.5);
      const logs = sortedFinite(Float64Array.from(ratio, (v) => (v > 0 ? Math.abs(Math.log(v)) : NaN)));
      const room = Math.exp(Math.max((quantile(logs, 0.995) || 0) * 1.1, Math.log(2)));
      return {
        xs: shift,
        ys: Float64Array.from(ratio, (v) => (v > 0 ? v : NaN)),
        x: d3.scaleLinear().domain([-reach, reach]),
        y: d3.scaleLog().domain([1 / room, room]),
        labels: { x: "shift from A to B, in σ", y: "standard deviation, B / A" },
        format: { yTicks: logTicks(1 / room, room, 6) },
        note: "Gray box: too small to matter (0.2 σ, 10%)",
        words: (c) => [`channel ${c}`, `shift ${number(shift[c])} σ`, `standard deviation × ${number(ratio[c])}`],
        under(g, x, y, width, height) {
          g.append("rect").attr("class", "small-box").attr("x", x(-0.2)).attr("width", x(0.2) - x(-0.2)).attr("y", y(1.1)).attr("height", y(1 / 1.1) - y(1.1));
          g.append("line").attr("class", "expected").attr("x1", x(0)).attr("x2", x(0)).attr("y1", 0).attr("y2", height);
          g.append("line").attr("class", "expected").attr("x1", 0).attr("x2", width).attr("y1", y(1)).attr("y2", y(1));
        },
      };
    },
  };
}

/** One vector of B against that of A; equal on the line. */
function againstSpec(name, label, sorted = false) {
  const order = (values) => (sorted ? Float64Array.from(values).sort().reverse() : values);
  return {
    title: sorted ? `${label}: largest to smallest of A and of B` : `${label} of B against A`,
    description: `${label} of B against ${label} of A, channel by channel${sorted ? " in the order of their size" : ""}.`,
    prepare(layer, columns) {
      const [a, b] = ["a", "b"].map((side) => columns[`${name}_${side}`]);
      if (!a?.some(Number.isFinite) || !b?.some(Number.isFinite)) return null;
      const [xs, ys] = [order(a), order(b)];
      if (xs.every((v, c) => v === ys[c])) return null;
      const all = sortedFinite(Float64Array.from([...xs, ...ys]));
      const [low, high] = [Math.min(all[0], 0), all[all.length - 1]];
      const room = 0.06 * (high - low || 1);
      return {
        xs,
        ys,
        x: d3.scaleLinear().domain([low - room, high + room]),
        y: d3.scaleLinear().domain([low - room, high + room]),
        labels: { x: "A", y: "B" },
        note: sorted ? "Channels do not correspond: the largest of A stands against the largest of B, and so on. Orange: the same distribution" : "Orange: equal",
        words: (c) => [sorted ? `number ${c + 1} by size` : `channel ${c}`, `A ${number(xs[c])}, B ${number(ys[c])}`],
        under(g, x, y) {
          g.append("line").attr("class", "expected").attr("x1", x(low)).attr("x2", x(high)).attr("y1", y(low)).attr("y2", y(high));
        },
      };
    },
  };
}

const sortedSpec = (store, name) => againstSpec(name, { gamma: "γ", beta: "β", running_var: "Running variance", fires: "Share of positive outputs" }[name], true);

/** A, B or their difference, of the quantity that the map shows. */
function newSides(store, state) {
  const { sides } = store.manifest;
  const titles = ["A", "B", "B − A"];
  const quantity = () => Object.keys(sides).find((name) => sides[name].includes(state.measure));
  const buttons = titles.map((title, k) => make("button", { type: "button", onclick: () => state.set({ measure: sides[quantity()][k] }) }, title));
  const element = make("span", { class: "segments", role: "group", "aria-label": "side" }, ...buttons);
  function show() {
    const columns = sides[quantity()];
    buttons.forEach((button, k) => {
      button.disabled = !columns[k];
      button.setAttribute("aria-pressed", String(columns[k] === state.measure));
    });
  }
  /** Another quantity on the same side, or what there is of it. */
  function choose(name) {
    const k = sides[quantity()].indexOf(state.measure);
    state.set({ measure: sides[name][k] || sides[name].find(Boolean) });
  }
  state.on("measure", show);
  show();
  return { element, quantity, choose };
}
