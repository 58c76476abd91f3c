/* The samples with the highest and lowest outputs of a channel: of the one that is chosen, or of the purest of a layer. */

const FEW_ROWS = 5;

function newExemplars(store, state, open) {
  const held = store.manifest.exemplars;
  const rows = make("div", { class: "exemplars" });
  const heading = make("h4", {}, "");
  const note = make("p", { class: "note" }, held ? held.note : "");
  const element = make("div", { class: "panel exemplars-panel", hidden: true }, heading, rows, note);
  const picture = held && store.text("thumbnails");
  if (picture) element.style.setProperty("--thumbnails", `url(data:image/jpeg;base64,${picture})`);
  const starts = [];
  if (held) held.layers.reduce((start, channels, i) => ((starts[i] = start), start + channels.length), 0);
  let numbers = null;
  let positions = null;

  /** Unpacked once, before the first layer is drawn. */
  async function ready() {
    if (!held || numbers) return;
    const [bytes, places] = await Promise.all([store.bytes("exemplars"), store.bytes("exemplar-positions")]);
    numbers = new Uint16Array(bytes.buffer);
    positions = places && new Uint16Array(places.buffer);
  }

  function draw(layer) {
    const at = store.manifest.layers.indexOf(layer);
    const channels = held && numbers ? held.layers[at] : [];
    element.hidden = !channels.length;
    if (element.hidden) return;
    const one = state.channel >= 0;
    const shown = one ? channels.flatMap((c, row) => (c === state.channel ? [row] : [])) : channels.slice(0, FEW_ROWS).map((_, row) => row);
    heading.textContent = one ? `Samples with the highest and lowest outputs of channel ${state.channel}` : "Samples with the highest and lowest outputs";
    rows.replaceChildren(
      ...shown.map((row) => {
        const name = one ? null : make("button", { type: "button", class: "plain", onclick: () => open(channels[row]) }, `channel ${channels[row]}`);
        return make("div", { class: "exemplar-row" }, name, ...["highest", "lowest"].map((side, k) => group(side, (starts[at] + row) * 2 + k)));
      }),
    );
    if (!shown.length) rows.append(make("p", { class: "note" }, `The page holds no samples of channel ${state.channel}.`));
  }

  /** One side of a channel: its samples, the most telling first, and how many are of one class. */
  function group(side, start) {
    const places = Array.from({ length: held.k }, (_, i) => start * held.k + i).filter((i) => numbers[i] < held.names.length);
    const counts = d3.rollup(places.map((i) => held.labels[numbers[i]]).filter((label) => label), (of) => of.length, (label) => label);
    const most = d3.greatest(counts, ([, n]) => n);
    const words = most && most[1] > 1 ? `${most[1]} of ${places.length} are ${classOf(most[0])}` : "";
    return make("div", { class: "exemplar-side" }, make("p", {}, `${side}${words ? `: ${words}` : ""}`), make("div", { class: "tiles-of-samples" }, ...places.map(tile)));
  }

  /** The name of a class, or "class 3" where only its number is known. */
  function classOf(label) {
    return /^\d+$/.test(label) ? `class ${label}` : label;
  }

  function tile(i) {
    const sample = numbers[i];
    const token = positions && positions[i] !== 0xffff ? `, position ${positions[i]}` : "";
    const label = held.labels[sample] ? ` (${classOf(held.labels[sample])})` : "";
    const words = `${held.names[sample]}${token}${label}`;
    const cell = held.cells[sample];
    if (cell < 0) return make("span", { class: picture ? "sample-name square" : "sample-name", title: words }, `${held.names[sample].split("/").pop()}${token}`);
    const square = make("span", { class: "thumbnail", role: "img", title: words, "aria-label": words });
    square.style.backgroundPosition = `${-(cell % held.columns) * held.side}px ${-Math.floor(cell / held.columns) * held.side}px`;
    return square;
  }

  return { element, draw, ready };
}
