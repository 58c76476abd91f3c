/* The address: #layer=layer3.0.bn2&channel=17 opens a layer, and the back button returns. */

function addressOf(state, layers) {
  const layer = layers[state.layer];
  if (!layer) return "";
  const parts = [`layer=${encodeURIComponent(layer.name)}`];
  if (layer.call) parts.push(`call=${layer.call + 1}`);
  if (state.channel >= 0) parts.push(`channel=${state.channel}`);
  return `#${parts.join("&")}`;
}

/** What an address names: {layer, channel}, or null. */
function placeOf(hash, layers) {
  const position = /^#layer-(\d+)$/.exec(hash);
  if (position) return Number(position[1]) < layers.length ? { layer: Number(position[1]), channel: -1 } : null;
  if (!hash.startsWith("#layer=")) return null;
  const asked = new URLSearchParams(hash.slice(1));
  const call = Number(asked.get("call") ?? 1) - 1;
  const layer = layers.findIndex((l) => l.name === asked.get("layer") && l.call === call);
  if (layer < 0) return null;
  const channel = asked.has("channel") ? Number(asked.get("channel")) : -1;
  const there = Number.isInteger(channel) && channel >= 0 && channel < layers[layer].n;
  return { layer, channel: there ? channel : -1 };
}

function newRoute(root, store, state, view, alone) {
  const { layers } = store.manifest;
  let following = false;

  function bring(calm) {
    const section = view.section(state.layer);
    if (!section) return;
    const still = calm || window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const top = section.parentElement.closest("section[id]") ?? section;
    top.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
  }

  function follow() {
    const place = placeOf(window.location.hash, layers);
    if (!place) return false;
    following = true;
    state.set(place);
    following = false;
    // a frame of its own for what was drawn below the fold: what moves while one scrolls is seen to jump
    const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    view.settled().then(painted).then(() => bring(true));
    return true;
  }

  /** Links of the page to a layer, and perhaps a channel of it, open it at once. */
  function openLink(event) {
    const link = event.target.closest?.("a[href^='#layer-']");
    const place = link && placeOf(link.getAttribute("href"), layers);
    if (!place) return;
    event.preventDefault();
    const same = place.layer === state.layer;
    state.set({ layer: place.layer, channel: Number(link.dataset.channel ?? -1) });
    if (same) bring();
  }

  root.addEventListener("click", openLink);
  if (alone) window.addEventListener("popstate", follow);
  state.on("layer channel", (names) => {
    if (following) return;
    if (alone) {
      const address = addressOf(state, layers);
      if (address && address !== window.location.hash) window.history.pushState(null, "", address);
    }
    if (names.includes("layer") && state.layer >= 0) bring();
  });
  return { follow };
}
