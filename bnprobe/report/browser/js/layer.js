/* One layer: chosen from a list, with its panels below its words. */

function newLayerView(host, root, store, state, tip) {
  const { layers } = store.manifest;
  const sections = [...root.querySelectorAll("[data-layer]")];
  const open = (channel) => state.set({ channel });
  const select = make("select", { "aria-label": "Layer", onchange: () => state.set({ layer: Number(select.value), channel: -1 }) });
  const back = make("button", { type: "button", onclick: () => step(-1) }, "← previous");
  const next = make("button", { type: "button", onclick: () => step(1) }, "next →");
  const chip = make("span", { class: "chip", hidden: true });
  const tools = make("div", { class: "tools" }, back, make("label", { class: "choice" }, make("span", {}, "Layer"), select), next, chip);
  const stage = make("div", { class: "stage" });
  const found = make("ul", { class: "layer-findings" });
  const ridges = newRidges(store, state, tip, open);
  const scatters = [planeSpec(store), movedSpec(), gradientSpec()].map((spec) => newScatter(state, tip, open, spec));
  const roles = newRoles(store, state, tip);
  const table = newTable(store, state, open);
  const points = make("div", { class: "trio" }, ...scatters.map((s) => s.element));
  stage.append(found, ridges.element, points, roles.element, table.element);
  host.prepend(tools);
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

  async function load() {
    const layer = layers[state.layer];
    if (!layer) return;
    const all = await store.several(store.names);
    await Promise.all(["before", "after"].map(store.bytes));
    if (layers[state.layer] !== layer) return;
    const columns = {};
    for (const name of store.names) columns[name] = all[name].subarray(layer.start, layer.start + layer.n);
    shown = { layer, columns };
    sections.forEach((section, i) => section.classList.toggle("chosen", i === state.layer));
    (sections[state.layer] ?? host).append(stage);
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
    const plots = [ridges, ...scatters];
    await Promise.all(plots.map((plot) => plot.prepare(layer, columns)));
    if (shown.layer !== layer) return;
    drawChip(layer);
    roles.draw(layer, columns);
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

  let loading = Promise.resolve();
  state.on("layer", () => {
    loading = load();
  });
  state.on("channel picked theme size", (names) => {
    if (shown && shown.layer === layers[state.layer]) redraw();
    else if (!names.includes("layer")) loading = load();
  });
  state.on("visible", fillSelect);
  return { section: (i) => sections[i], load, settled: () => loading };
}
