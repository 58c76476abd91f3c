/* What the reader is looking at, and who wants to know when it changes. */

const MOST_PINS = 4;

/**
 * `visible` are the positions of the layers that pass the filter, `layer` and `channel` what is opened,
 * `picked` marks channels (over the whole network) that were brushed, or is null; `pins` are places that stay
 * beside what is opened, {layer, channel}, channel -1 for the whole layer; `stretched` colours span the values.
 */
function newState(store) {
  const listeners = new Map();
  const state = {
    measure: store.manifest.first,
    order: "value",
    stretched: false,
    text: "",
    finding: "",
    visible: store.manifest.layers.map((_, i) => i),
    layer: -1,
    channel: -1,
    picked: null,
    pins: [],
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

/** Positions of the layers whose name holds the text and that have the finding, or one of several (parted by spaces). */
function passing(layers, text, finding) {
  const wanted = text.trim().toLowerCase();
  return layers.flatMap((layer, i) => {
    const named = layer.title.toLowerCase().includes(wanted) || layer.kind.includes(wanted);
    const found =
      !finding || (finding === "any" ? layer.findings.length > 0 : layer.findings.some((f) => finding.split(" ").includes(f.rule)));
    return named && found ? [i] : [];
  });
}

/** How many of a layer's channels are picked. */
function pickedIn(picked, layer) {
  let n = 0;
  if (picked) for (let i = layer.start; i < layer.start + layer.n; i++) n += picked[i];
  return n;
}

/** The pins with a place, or without it where it is there. */
function pinned(pins, place) {
  const others = pins.filter((pin) => pin.layer !== place.layer || pin.channel !== place.channel);
  return others.length < pins.length ? others : [...pins, place].slice(-MOST_PINS);
}
