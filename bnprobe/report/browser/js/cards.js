/* Cards of findings: "Show on map" keeps only their layers in view, and picks their channels; code is copied. */

/** The layers and channels that some rules are about. Where a layer itself is meant, all of its channels are. */
function concerned(store, rules) {
  const { layers, findings } = store.manifest;
  const visible = new Set();
  const picked = new Uint8Array(store.nChannels);
  for (const finding of findings.filter((f) => rules.includes(f.rule))) {
    for (const [at, channels] of finding.places) {
      visible.add(at);
      const { start, n } = layers[at];
      if (channels.length) channels.forEach((c) => (picked[start + c] = 1));
      else picked.fill(1, start, start + n);
    }
  }
  return { visible: [...visible].sort((a, b) => a - b), picked };
}

function wakeCards(root, store, state, mapHost) {
  const buttons = [...root.querySelectorAll(".finding .show")];
  for (const button of buttons) {
    const { rules } = button.dataset;
    button.addEventListener("click", () => {
      if (state.finding === rules) {
        state.set({ finding: "", visible: store.manifest.layers.map((_, i) => i), picked: null });
        return;
      }
      state.set({ finding: rules, text: "", ...concerned(store, rules.split(" ")) });
      mapHost.closest("section").scrollIntoView({ block: "start" });
    });
  }
  state.on("finding", () => {
    for (const button of buttons) {
      const shown = button.dataset.rules === state.finding;
      button.setAttribute("aria-pressed", String(shown));
      button.textContent = shown ? "Show all layers again" : "Show on map";
    }
  });
}

/** A button beside code of several lines that copies it. */
function wakeCode(root) {
  if (!navigator.clipboard) return;
  for (const code of root.querySelectorAll("code.lines")) {
    const copied = () => {
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    };
    const button = make("button", { type: "button", class: "copy", onclick: () => navigator.clipboard.writeText(code.textContent).then(copied) }, "Copy");
    const hold = make("span", { class: "hold" });
    code.replaceWith(hold);
    hold.append(button, code);
  }
}

/** The table of layers keeps the rows of those that pass the filter. */
function wakeLayerTable(root, state) {
  const rows = [...root.querySelectorAll("#network tbody tr")];
  const at = (row) => Number(row.querySelector("a[href^='#layer-']")?.hash.slice("#layer-".length) ?? -1);
  state.on("visible", () => {
    const kept = new Set(state.visible);
    for (const row of rows) row.classList.toggle("left-out", !kept.has(at(row)));
  });
}
