/* The address: #layer=layer3.0.bn2&channel=17&color=fires opens what it names as it was left, and the back button returns. */

const ADDRESS_LENGTH = 1800;
const OURS = ["layer", "call", "channel", "color", "order", "stretch", "filter", "finding", "pick", "pin"];

/** Marked channels as text: the ranges of each layer, 2:0-5,9;4:1 for channels 0 to 5 and 9 of layer 2 and 1 of layer 4. */
function pickedText(picked, layers) {
  const found = [];
  layers.forEach((layer, i) => {
    const ranges = [];
    for (let c = 0; c < layer.n; c++) {
      if (!picked[layer.start + c]) continue;
      const last = ranges.at(-1);
      if (last?.[1] === c - 1) last[1] = c;
      else ranges.push([c, c]);
    }
    if (ranges.length) found.push(`${i}:${ranges.map(([a, b]) => (a === b ? a : `${a}-${b}`)).join(",")}`);
  });
  return found.join(";");
}

/** The marks that a text names; null without any. */
function pickedOf(text, layers, n) {
  const picked = new Uint8Array(n);
  let some = false;
  for (const [, at, ranges] of (text ?? "").matchAll(/(\d+):([\d,-]+)/g)) {
    const layer = layers[Number(at)];
    for (const [, from, to] of ranges.matchAll(/(\d+)(?:-(\d+))?/g)) {
      for (let c = Number(from); layer && c <= Math.min(Number(to ?? from), layer.n - 1); c++) {
        picked[layer.start + c] = 1;
        some = true;
      }
    }
  }
  return some ? picked : null;
}

/** What the reader sees as an address; what is as on a fresh page is left out. `told` is whether the reader opened the layer. */
function addressOf(state, store, told) {
  const { layers, first } = store.manifest;
  const layer = layers[state.layer];
  const parts = [];
  const add = (name, value) => parts.push(`${name}=${encodeURIComponent(value).replaceAll("%3A", ":").replaceAll("%2C", ",").replaceAll("%3B", ";")}`);
  if (told && layer) {
    add("layer", layer.name);
    if (layer.call) add("call", layer.call + 1);
    if (state.channel >= 0) add("channel", state.channel);
  }
  if (state.measure !== first) add("color", state.measure);
  if (state.order !== "value") add("order", state.order);
  if (state.stretched) add("stretch", 1);
  if (state.text) add("filter", state.text);
  if (state.finding) add("finding", state.finding);
  if (state.pins.length) add("pin", state.pins.map((pin) => `${pin.layer}:${pin.channel}`).join(","));
  const picked = state.picked ? pickedText(state.picked, layers) : "";
  if (picked && picked.length < ADDRESS_LENGTH) add("pick", picked);
  return parts.length ? `#${parts.join("&")}` : "";
}

/** The address without its mistakes: what it names, and in words what it names that is not there. */
function placeOf(hash, store) {
  const { layers, paints, first } = store.manifest;
  const position = /^#layer-(\d+)$/.exec(hash);
  const asked = new URLSearchParams(position ? "" : hash.slice(1));
  const place = {
    layer: position ? Number(position[1]) : -1,
    channel: -1,
    measure: asked.get("color") ?? first,
    order: asked.get("order") ?? "value",
    stretched: asked.get("stretch") === "1",
    text: asked.get("filter") ?? "",
    finding: asked.get("finding") ?? "",
    picked: pickedOf(asked.get("pick"), layers, store.nChannels),
    pins: [],
  };
  const wrong = [];
  if (asked.has("layer")) {
    const [name, call] = [asked.get("layer"), Number(asked.get("call") ?? 1) - 1];
    place.layer = layers.findIndex((l) => l.name === name && l.call === call);
    if (place.layer < 0) wrong.push(`no layer “${shorten(visible(name), 60)}”${nearest(name, layers)}`);
  } else if (place.layer >= layers.length) wrong.push(`no layer ${place.layer}`);
  if (place.layer >= layers.length) place.layer = -1;
  if (asked.has("channel") && place.layer >= 0) {
    const [channel, layer] = [Number(asked.get("channel")), layers[place.layer]];
    if (Number.isInteger(channel) && channel >= 0 && channel < layer.n) place.channel = channel;
    else wrong.push(`no channel ${shorten(visible(asked.get("channel")), 20)} in ${layer.title} (0 to ${layer.n - 1})`);
  }
  if (!paints[place.measure]) {
    wrong.push(`no color “${shorten(visible(place.measure), 40)}”`);
    place.measure = first;
  }
  if (!["value", "gamma", "channel"].includes(place.order)) place.order = "value";
  for (const [, i, c] of (asked.get("pin") ?? "").matchAll(/(\d+):(-?\d+)/g)) {
    const pin = { layer: Number(i), channel: Number(c) };
    if (layers[pin.layer] && pin.channel < layers[pin.layer].n && place.pins.length < MOST_PINS) place.pins.push(pin);
  }
  return { place, wrong };
}

/** The layer with the longest beginning and end in common with a name, in words. */
function nearest(name, layers) {
  const common = (a, b) => {
    let n = 0;
    while (n < Math.min(a.length, b.length) && a[n] === b[n]) n += 1;
    return n;
  };
  const backwards = (text) => [...text].reverse().join("");
  const scores = layers.map((l) => common(l.name, name) + common(backwards(l.name), backwards(name)));
  const best = d3.maxIndex(scores);
  return scores[best] > 3 ? `; the nearest is ${shorten(layers[best].title, 60)}` : "";
}

function newRoute(root, store, state, view, notice, refilter) {
  const { layers } = store.manifest;
  let following = false;
  let told = false;

  function bring(calm) {
    const section = view.section(state.layer);
    if (!section || view.sheet()) return;
    const still = calm || window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const top = root.querySelector(".explorer") ?? section.parentElement.closest("section[id]") ?? section;
    top.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
  }

  /** Shows what the address names; whether it names anything that is opened. */
  function follow() {
    const { hash } = window.location;
    const ours = /^#layer-\d+$/.test(hash) || OURS.some((name) => hash.startsWith(`#${name}=`));
    if (hash && !ours) {
      // a chapter's own address is the browser's business
      if (!document.getElementById(safely(hash.slice(1)))) notice(`This page has no part “${shorten(visible(safely(hash.slice(1))), 60)}”.`);
      if (state.layer < 0) view.quietly();
      return false;
    }
    const { place, wrong } = placeOf(hash, store);
    notice(wrong.length ? `This page has ${wrong.join("; ")}.` : "");
    told = place.layer >= 0;
    if (!told) delete place.layer, delete place.channel;
    if (!place.pins.length && !state.pins.length) delete place.pins;
    following = true;
    state.set(place);
    refilter();
    if (!told) view.quietly();
    following = false;
    if (!told) return false;
    // a frame of its own for what was drawn below the fold: what moves while one scrolls is seen to jump
    const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    view.settled().then(painted).then(() => bring(true));
    return true;
  }

  /** Links of the page to a layer, and perhaps channels of it, open it at once; several channels are marked. */
  function openLink(event) {
    const link = event.target.closest?.("a[href^='#layer-']");
    if (!link) return;
    const { place } = placeOf(link.getAttribute("href"), store);
    if (place.layer < 0) return;
    event.preventDefault();
    const layer = layers[place.layer];
    const several = (link.dataset.channels ?? "").split(" ").filter(Boolean).map(Number);
    const changes = { layer: place.layer, channel: Number(link.dataset.channel ?? -1) };
    if (several.length > 1) {
      changes.picked = new Uint8Array(store.nChannels);
      for (const c of several) changes.picked[layer.start + c] = 1;
      changes.channel = -1;
    }
    const same = place.layer === state.layer;
    told = true;
    state.set(changes);
    if (same) bring();
  }

  root.addEventListener("click", openLink);
  window.addEventListener("popstate", follow);
  state.on("layer channel measure order stretched text finding picked pins", (names) => {
    if (following) return;
    if (names.includes("layer") || names.includes("channel")) told = true;
    const address = addressOf(state, store, told);
    const typed = names.every((name) => name === "text");
    const bare = window.location.pathname + window.location.search;
    if (address !== window.location.hash) window.history[typed ? "replaceState" : "pushState"](null, "", address || bare);
    if (names.includes("layer") && state.layer >= 0) bring();
  });
  return { follow, address: () => addressOf(state, store, told) };
}

/** What a part of an address says; a broken one as it stands. */
function safely(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
