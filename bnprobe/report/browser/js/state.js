/* What the reader is looking at, and who wants to know when it changes. */

/**
 * `visible` are the positions of the layers that pass the filter, `layer` and `channel` what is opened,
 * `picked` marks channels (over the whole network) that were brushed, or is null.
 */
function newState(store) {
  const listeners = new Map();
  const state = {
    measure: Object.keys(store.manifest.paints)[0],
    order: "gamma",
    text: "",
    finding: "",
    visible: store.manifest.layers.map((_, i) => i),
    layer: -1,
    channel: -1,
    picked: null,
  };

  /** Calls `listener` when one of the named things (separated by spaces) has changed. */
  function on(names, listener) {
    for (const name of names.split(" ")) {
      if (!listeners.has(name)) listeners.set(name, []);
      listeners.get(name).push(listener);
    }
  }

  /** Changes the state, and tells each listener once. */
  function set(changes) {
    const changed = Object.keys(changes).filter((name) => state[name] !== changes[name]);
    Object.assign(state, changes);
    tell(changed);
  }

  function tell(names) {
    new Set(names.flatMap((name) => listeners.get(name) || [])).forEach((listener) => listener(names));
  }

  return Object.assign(state, { on, set, tell });
}

/** Positions of the layers whose name holds the text and that have the finding. */
function passing(layers, text, finding) {
  const wanted = text.trim().toLowerCase();
  return layers.flatMap((layer, i) => {
    const named = layer.title.toLowerCase().includes(wanted) || layer.kind.includes(wanted);
    const found =
      !finding || (finding === "any" ? layer.findings.length > 0 : layer.findings.some((f) => f.rule === finding));
    return named && found ? [i] : [];
  });
}

/** How many of a layer's channels are picked. */
function pickedIn(picked, layer) {
  let n = 0;
  if (picked) for (let i = layer.start; i < layer.start + layer.n; i++) n += picked[i];
  return n;
}
