/* One layer: chosen from a list, with its facts and panels. */

/**
 * What the page says of each layer. Hundreds of layers would take the browser longest of all that is written, and one is
 * seen: where scripts run they stand in the page as text, of which an element is made when it is asked for.
 */
function newSections(root) {
  const texts = new Map([...root.querySelectorAll("noscript[data-layer]")].map((text) => [Number(text.dataset.layer), text]));
  const made = new Map();

  function section(i) {
    const text = texts.get(i);
    if (text && !made.has(i)) {
      made.set(i, new DOMParser().parseFromString(text.textContent, "text/html").body.firstElementChild);
      text.replaceWith(made.get(i));
    }
    return made.get(i);
  }

  return { section, made, all: () => texts.forEach((_, i) => section(i)) };
}

function newLayerView(host, root, sections, store, state, tip, save) {
  const { layers } = store.manifest;
  const side = host.closest("section");
  const open = (channel) => state.set({ channel });
  const select = make("select", { "aria-label": "Layer", onchange: () => state.set({ layer: Number(select.value), channel: -1 }) });
  const back = make("button", { type: "button", "aria-label": "previous layer", onclick: () => step(-1) }, "←");
  const next = make("button", { type: "button", "aria-label": "next layer", onclick: () => step(1) }, "→");
  const pin = make("button", { type: "button", "aria-pressed": "false", onclick: () => state.set({ pins: pinned(state.pins, { layer: state.layer, channel: state.channel }) }) });
  const close = make("button", { type: "button", class: "close", onclick: () => sheet(false) }, "close");
  const chip = make("span", { class: "chip", hidden: true });
  const pins = make("span", { class: "pins", hidden: true });
  const tools = make("div", { class: "tools" }, back, make("label", { class: "choice" }, make("span", { class: "visually-hidden" }, "Layer"), select), next, pin, close, chip, pins);
  const heading = make("h3");
  const stage = make("div", { class: "stage" }, heading);
  const found = make("ul", { class: "layer-findings" });
  const { plots, samples, rest } = { samples: [], ...(store.manifest.compared ? comparedPanels : ownPanels)(store, state, tip, open) };
  const table = newTable(store, state, open);
  stage.append(plots[0].element, ...samples.map((one) => one.element), found, ...plots.slice(1).map((plot) => plot.element), ...rest.map((one) => one.element), table.element);
  host.prepend(tools);
  pin.hidden = Boolean(store.manifest.compared);
  for (const plot of plots.flatMap((one) => one.plots)) save.panel(plot, () => `${layers[state.layer].name} ${plot.heading.textContent}`);
  save.table(table.element, table.rows, () => layers[state.layer].name);
  let shown = null;

  function fillSelect() {
    const listed = state.visible.includes(state.layer) || state.layer < 0 ? state.visible : [state.layer, ...state.visible];
    select.replaceChildren(...listed.map((i) => make("option", { value: i }, shorten(layers[i].title, 60))));
    select.value = String(state.layer);
  }

  function step(by) {
    const at = state.visible.indexOf(state.layer);
    const to = state.visible[Math.max(0, Math.min(state.visible.length - 1, at + by))];
    if (to !== undefined) state.set({ layer: to, channel: -1 });
  }

  const narrow = () => window.matchMedia("(max-width: 40rem)").matches;

  /** On a narrow screen the layer comes up from below over the map, and goes again. */
  function sheet(up) {
    side.classList.toggle("sheet", up && narrow() && document.body === root);
    if (up) side.scrollTop = 0;
  }

  async function load() {
    const layer = layers[state.layer];
    if (!layer) return;
    const all = await store.several(store.names);
    await Promise.all([...["before", "after"].map(store.bytes), ...samples.map((one) => one.ready())]);
    if (layers[state.layer] !== layer) return;
    shown = { layer, columns: slices(all, layer) };
    const section = sections.section(state.layer);
    heading.textContent = layer.title;
    heading.hidden = Boolean(section); // which has its own
    (section ?? host).append(stage);
    sections.made.forEach((section, i) => section.classList.toggle("chosen", i === state.layer));
    fillSelect();
    drawFindings(layer);
    await redraw();
    stage.dataset.shown = layer.title;
  }

  function drawFindings(layer) {
    found.hidden = !layer.findings.length;
    found.replaceChildren(
      ...layer.findings.map((f) => {
        const line = make("li", { class: f.severity }, make("span", { class: "severity" }, f.severity), ` ${f.says} `);
        if (f.channels.length) line.append(make("button", { type: "button", onclick: () => pick(layer, f.channels) }, `show ${count(f.channels.length, "channel")}`));
        return line;
      }),
    );
  }

  function pick(layer, channels) {
    const picked = new Uint8Array(store.nChannels);
    for (const c of channels) picked[layer.start + c] = 1;
    state.set({ picked });
  }

  /** First everything that decides what is there, then one look at the widths, then the drawing. */
  async function redraw() {
    if (!shown) return;
    const { layer, columns } = shown;
    await Promise.all(plots.map((plot) => plot.prepare(layer, columns)));
    if (shown.layer !== layer) return;
    drawChip(layer);
    drawPins();
    for (const one of [...samples, ...rest]) one.draw(layer, columns);
    for (const plot of plots) plot.measure();
    for (const plot of plots) plot.draw(layer, columns);
    table.draw(layer, columns);
  }

  function drawChip(layer) {
    chip.hidden = !state.picked && state.channel < 0;
    const parts = [];
    if (state.channel >= 0) parts.push(`channel ${state.channel}`);
    if (state.picked) {
      const all = state.picked.reduce((n, v) => n + v, 0);
      parts.push(`${count(pickedIn(state.picked, layer), "channel")} selected here, ${all.toLocaleString("en-US")} in the network`);
    }
    const drop = make("button", { type: "button", onclick: () => state.set({ picked: null, channel: -1 }) }, "clear");
    chip.replaceChildren(make("span", {}, parts.join("; ")), drop);
  }

  const titleOf = ({ layer, channel }) => `${shorten(layers[layer].title, 24)}${channel < 0 ? "" : ` channel ${channel}`}`;

  /** What is pinned, in its colours; a click opens it. */
  function drawPins() {
    const here = { layer: state.layer, channel: state.channel };
    const on = state.pins.some((one) => one.layer === here.layer && one.channel === here.channel);
    pin.textContent = `${on ? "unpin" : "pin"} ${state.channel < 0 ? "layer" : "channel"}`;
    pin.setAttribute("aria-pressed", String(on));
    pins.hidden = !state.pins.length;
    pins.replaceChildren(
      ...state.pins.map((one, k) => {
        const swatch = make("i", { class: "swatch" });
        swatch.style.background = PINS[k];
        const drop = make("button", { type: "button", "aria-label": `unpin ${titleOf(one)}`, onclick: () => state.set({ pins: pinned(state.pins, one) }) }, "×");
        return make("span", { class: "chip" }, swatch, make("button", { type: "button", class: "plain", onclick: () => state.set(one) }, titleOf(one)), drop);
      }),
    );
  }

  /** Opens the layer with the most severe finding, or the first, without leaving where the reader is. */
  function quietly() {
    sheet(false);
    const order = SEVERITIES.map((severity) => layers.findIndex((l) => worst(l.findings) === severity));
    Object.assign(state, { layer: Math.max(order.find((i) => i >= 0) ?? 0, 0), channel: -1 });
    loading = load().then(() => state.tell(["opened"]));
    return loading;
  }

  let loading = Promise.resolve();
  state.on("layer", () => {
    loading = load();
  });
  state.on("layer channel", () => sheet(true));
  state.on("channel picked pins stretched theme size", (names) => {
    if (shown && shown.layer === layers[state.layer]) redraw();
    else if (!names.includes("layer")) loading = load();
  });
  state.on("visible", fillSelect);
  document.addEventListener("keydown", (event) => event.key === "Escape" && sheet(false));
  return { section: (i) => sections.section(i) ?? host, load, quietly, sheet: () => side.classList.contains("sheet"), settled: () => loading };
}

/** The panels of a layer: its channels from input to output, distributions, planes, roles. */
function ownPanels(store, state, tip, open) {
  const scatters = [planeSpec(store), movedSpec(state), gradientSpec()].map((spec) => newScatter(store, state, tip, open, spec));
  return { plots: [newTransfer(store, state, tip), newRidges(store, state, tip, open), together(scatters)], samples: [newExemplars(store, state, open)], rest: [newRoles(store, state, tip)] };
}

/** Plots beside each other, as one. */
function together(plots) {
  const element = make("div", { class: "trio" }, ...plots.map((plot) => plot.element));
  return {
    element,
    plots: plots.flatMap((plot) => plot.plots),
    prepare: (layer, columns) => Promise.all(plots.map((plot) => plot.prepare(layer, columns))),
    measure: () => plots.forEach((plot) => plot.measure()),
    draw: (layer, columns) => plots.forEach((plot) => plot.draw(layer, columns)),
  };
}
