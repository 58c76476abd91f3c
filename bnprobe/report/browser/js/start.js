/* Wakes the page: without the means to unpack the data it stays as it is on paper. */

function start(root) {
  if (!root) return;
  if (typeof DecompressionStream === "undefined" || !root.querySelector("script[data-bnp=manifest]")) {
    root.classList.remove("live");
    newSections(root).all();
    return;
  }
  root.classList.add("live");
  const sections = newSections(root);
  inks(root); // before anything is added, after which the whole page is styled once more
  const store = openStore(root);
  const state = newState(store);
  state.nChannels = store.nChannels;
  const tip = newTip(root);
  const mapHost = root.querySelector("[data-bnp=map]");
  const layerHost = root.querySelector("[data-bnp=layers]");
  const save = newSave(root, () => route?.address() ?? "");
  let route = null;
  wakeTables(root);
  if (layerHost) placeLayers(root, layerHost.closest("section"));
  const tools = mapHost ? newMapTools(store, state) : null;
  if (tools) {
    mapHost.append(tools.element);
    wakeCards(root, store, state, mapHost);
    wakeLayerTable(root, state);
  }
  wakeCode(root);
  wakeSpine(root, store, state, tip);
  const ready = mapHost ? newMap(mapHost, root, store, state, tip) : Promise.resolve();
  if (mapHost) save.map(mapHost, store, state);
  if (layerHost) {
    const view = newLayerView(layerHost, root, sections, store, state, tip, save);
    route = newRoute(root, store, state, view, newNotice(root), () => tools?.refilter());
    ready.then(route.follow);
  }
  wakeDesk(root, store, state, save);
  save.figures();
  wakePrinting(root, sections);
  watch(root, state);
  ready.then(() => {
    root.dataset.after = String(Math.round(performance.now()));
    root.dataset.ready = "true";
  });
}

/** On screen the opened layer stands beside the map; on paper all layers come after the chapters. */
function placeLayers(root, layers) {
  const explorer = layers.parentElement;
  const later = root.querySelector(".later");
  window.addEventListener("beforeprint", () => later.before(layers));
  window.addEventListener("afterprint", () => explorer.append(layers));
}

/** A line at the foot of the window that says what an address names and the page has not. */
function newNotice(root) {
  const words = make("span");
  const element = make("div", { class: "notice", role: "status", hidden: true }, words, make("button", { type: "button", onclick: () => (element.hidden = true) }, "close"));
  root.append(element);
  return (text) => {
    words.textContent = text;
    element.hidden = !text;
  };
}

/** On paper there is the summary, and on request everything. */
function wakePrinting(root, sections) {
  const all = () => {
    root.classList.add("everything");
    window.print();
  };
  window.addEventListener("beforeprint", () => {
    if (root.matches(".everything, :not(.has-cover)")) sections.all();
  });
  window.addEventListener("afterprint", () => root.classList.remove("everything"));
  root.querySelector("footer")?.append(make("p", { class: "tools" }, make("button", { type: "button", class: "print-all", onclick: all }, "Print everything")));
}

/** What the map shows, in which order, of which layers. */
function newMapTools(store, state) {
  const { paints, groups, findings, layers, compared } = store.manifest;
  const said = make("span", { class: "note", role: "status" });
  const filter = () => {
    const visible = passing(layers, state.text, state.finding);
    const same = visible.length === state.visible.length && visible.every((v, i) => v === state.visible[i]);
    if (!same) state.set({ visible });
    tell();
  };
  const tell = () => {
    const picked = state.picked?.reduce((n, v) => n + v, 0);
    const parts = [
      state.visible.length === layers.length ? "" : `${state.visible.length} of ${count(layers.length, "layer")}`,
      picked ? `${count(picked, "channel")} selected` : "",
    ];
    said.textContent = parts.filter(Boolean).join(", ");
    drop.hidden = !picked;
  };
  const drop = make("button", { type: "button", hidden: true, onclick: () => state.set({ picked: null }) }, "drop selection");
  const input = make("input", { type: "search", placeholder: "layer3, conv, …", oninput: () => (state.set({ text: input.value }), filter()) });
  const rules = [...new Set(findings.filter((f) => f.places.length).map((f) => f.rule))].sort();
  const sides = compared ? newSides(store, state) : null;
  const color = choice("Color", [], state.measure, (measure) => (sides ? sides.choose(measure) : state.set({ measure })));
  const measures = color.querySelector("select");
  for (const [name, [a, b, difference]] of Object.entries(compared ? store.manifest.sides : {})) {
    measures.append(make("option", { value: name }, paints[a || b || difference].label.replace(/^[AB]: /, "")));
  }
  for (const [group, names] of Object.entries(groups)) {
    if (names.length) measures.append(make("optgroup", { label: group }, ...names.map((name) => make("option", { value: name }, paints[name].label))));
  }
  const order = choice("Channels by", [["value", "the measure"], ["gamma", compared ? "|γ| of A" : "|γ|"], ["channel", "number"]], state.order, (by) => state.set({ order: by }));
  const stretch = make("input", { type: "checkbox", onchange: () => state.set({ stretched: stretch.checked }) });
  const stretchLabel = make("label", { class: "choice", title: "Spread the colors over this network's own values" }, stretch, make("span", {}, "Stretch colors"));
  const element = make("div", { class: "tools" }, color, order, stretchLabel, make("label", { class: "choice" }, make("span", {}, "Filter layers"), input));
  if (sides) color.after(sides.element);
  let found = null;
  if (rules.length) {
    const choices = [["", "all layers"], ["any", "with any finding"], ...rules.map((rule) => [rule, rule])];
    const label = choice("Findings", choices, "", (finding) => (state.set({ finding }), filter()));
    found = label.querySelector("select");
    element.append(label);
  }
  element.append(said, drop);

  /** The controls show the state, which an address may have set. */
  function refilter() {
    measures.value = sides ? sides.quantity() : state.measure;
    order.querySelector("select").value = state.order;
    stretch.checked = state.stretched;
    if (input.value !== state.text) input.value = state.text;
    if (found) choose(found, state.finding);
    filter();
  }
  state.on("measure order stretched text finding", refilter);
  state.on("picked visible", tell);
  refilter();
  return { element, refilter };
}

/** A finding in the list, where it may be one of several rules that a card is about. */
function choose(list, finding) {
  const known = [...list.options].some((option) => option.value === finding);
  if (!known) list.append(make("option", { value: finding }, finding.split(" ").join(", ")));
  list.value = finding;
}

/** Draws again when the style turns dark or light, or the width changes. */
function watch(root, state) {
  const again = () => {
    forgetInks();
    state.tell(["theme"]);
  };
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  root.addEventListener("restyled", again);
  const hosts = [root, ...root.querySelectorAll("[data-bnp=map], [data-bnp=layers]")];
  const widths = () => hosts.map((host) => host.clientWidth).join(" ");
  let known = widths();
  const observer = new ResizeObserver(() => {
    const now = widths();
    if (now === known || !root.clientWidth) return;
    known = now;
    state.tell(["size"]);
  });
  for (const host of hosts) observer.observe(host);
}
