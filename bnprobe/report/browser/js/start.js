/* Wakes the page: without the means to unpack the data it stays as it is on paper. */

function start(root) {
  if (!root) return;
  if (typeof DecompressionStream === "undefined" || !root.querySelector("script[data-bnp=manifest]")) {
    root.classList.remove("live");
    return;
  }
  root.classList.add("live");
  const store = openStore(root);
  const state = newState(store);
  state.nChannels = store.nChannels;
  const tip = newTip(root);
  const mapHost = root.querySelector("[data-bnp=map]");
  const layerHost = root.querySelector("[data-bnp=layers]");
  const { layers } = store.manifest;
  const alone = document.body === root;
  wakeTables(root);
  if (alone && mapHost && layerHost) drawTogether(mapHost.closest("section"), layerHost.closest("section"));
  if (mapHost) mapHost.append(mapTools(store, state));
  const ready = mapHost ? newMap(mapHost, root, store, state, tip) : Promise.resolve();
  if (layerHost) {
    const view = newLayerView(layerHost, root, store, state, tip);
    const route = newRoute(root, store, state, view, alone);
    ready.then(() => {
      if (!route.follow()) quietly(state, view, layers);
    });
  }
  inks(root);
  watch(root, state);
  ready.then(() => {
    root.dataset.after = String(Math.round(performance.now()));
    root.dataset.ready = "true";
  });
}

/** On screen the opened layer stands below the map, as in the navigation; on paper all layers come after the chapters. */
function drawTogether(network, layers) {
  const next = layers.nextElementSibling;
  network.after(layers);
  window.addEventListener("beforeprint", () => next?.before(layers));
  window.addEventListener("afterprint", () => network.after(layers));
}

/** Opens the layer with the most severe finding, or the first, without leaving where the reader is. */
function quietly(state, view, layers) {
  const order = SEVERITIES.map((severity) => layers.findIndex((l) => worst(l.findings) === severity));
  Object.assign(state, { layer: Math.max(order.find((i) => i >= 0) ?? 0, 0) });
  return view.load().then(() => state.tell(["opened"]));
}

/** What the map shows, in which order, of which layers. */
function mapTools(store, state) {
  const { paints, findings, layers } = store.manifest;
  const said = make("span", { class: "note", role: "status" });
  const filter = () => {
    const visible = passing(layers, state.text, state.finding);
    const same = visible.length === state.visible.length && visible.every((v, i) => v === state.visible[i]);
    said.textContent = visible.length === layers.length ? "" : `${visible.length} of ${count(layers.length, "layer")}`;
    if (!same) state.set({ visible });
  };
  const input = make("input", { type: "search", placeholder: "layer3, conv, …", oninput: () => (state.set({ text: input.value }), filter()) });
  const rules = [...new Set(findings.filter((f) => f.places.length).map((f) => f.rule))].sort();
  const measures = Object.entries(paints).map(([name, paint]) => [name, paint.label]);
  const tools = make(
    "div",
    { class: "tools" },
    choice("Color", measures, state.measure, (measure) => state.set({ measure })),
    choice("Channels by", [["gamma", "|γ|"], ["value", "the measure"], ["channel", "number"]], state.order, (order) => state.set({ order })),
    make("label", { class: "choice" }, make("span", {}, "Filter layers"), input),
  );
  if (rules.length) {
    const choices = [["", "all layers"], ["any", "with any finding"], ...rules.map((rule) => [rule, rule])];
    tools.append(choice("Findings", choices, "", (finding) => (state.set({ finding }), filter())));
  }
  tools.append(said);
  return tools;
}

/** Draws again when the style turns dark or light, or the width changes. */
function watch(root, state) {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    forgetInks();
    state.tell(["theme"]);
  });
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    state.tell(["size"]);
  }).observe(root);
}
