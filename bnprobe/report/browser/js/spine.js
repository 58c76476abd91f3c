/* The spine answers: the place under the pointer, a finger or the keyboard is named with all its values, and opens its layer. */

/** What the table below the spine says of every place: its words, and the link to its layer. */
function placesOf(section) {
  const table = section.querySelector(".as-table table");
  if (!table) return [];
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  return [...table.tBodies[0].rows].map((row) => {
    const [name, ...values] = [...row.cells].map((cell) => cell.textContent);
    return { lines: [name, ...values.map((value, k) => `${heads[k + 1]}: ${value}`)], link: row.querySelector("a")?.getAttribute("href") };
  });
}

function wakeSpine(root, store, state, tip) {
  for (const figure of root.querySelectorAll("figure[data-along]")) {
    const places = placesOf(figure.closest("section"));
    if (places.length) wakePlaces(figure, places, store, state, tip);
  }
}

function wakePlaces(figure, places, store, state, tip) {
  const down = figure.dataset.along === "down";
  const [from, to] = [Number(figure.dataset.from), Number(figure.dataset.to)];
  const rows = figure.dataset.rows.split(" ").map((range) => range.split("-").map(Number));
  const picture = figure.querySelector(".picture");
  const said = make("p", { class: "visually-hidden", "aria-live": "polite" });
  const marks = make("div", { class: "marks" });
  const hair = make("div", { class: "hair", hidden: true });
  const over = make("div", {
    class: "over",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "network by depth",
    "aria-label": `${picture.getAttribute("aria-label")} Arrow keys move between ${count(places.length, "place")}, Enter opens the layer.`,
  });
  const hold = make("div", { class: "hold" });
  hold.append(...picture.childNodes, marks, hair, over);
  picture.append(hold);
  picture.setAttribute("role", "group");
  picture.removeAttribute("tabindex");
  figure.append(said);
  let at = -1;

  const start = (i) => from + ((to - from) * i) / places.length;

  function lay(element, i) {
    const size = `${(100 * (to - from)) / places.length}%`;
    Object.assign(element.style, down ? { top: `${100 * start(i)}%`, height: size } : { left: `${100 * start(i)}%`, width: size });
  }

  function placeAt(event) {
    const box = over.getBoundingClientRect();
    const share = down ? (event.clientY - box.top) / box.height : (event.clientX - box.left) / box.width;
    const i = Math.floor(((share - from) / (to - from)) * places.length);
    return i >= 0 && i < places.length ? i : -1;
  }

  function show(i, x, y) {
    at = i;
    hair.hidden = i < 0;
    if (i < 0) return tip.hide();
    lay(hair, i);
    tip.show(x, y, places[i].lines);
  }

  function open(i) {
    tip.hide();
    figure.closest("section").querySelector(`.as-table a[href="${places[i].link}"]`)?.click();
  }

  over.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") show(placeAt(event), event.clientX, event.clientY);
  });
  over.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") show(-1);
  });
  over.addEventListener("click", (event) => {
    const i = placeAt(event);
    const finger = event.pointerType === "touch" || event.pointerType === "pen";
    // a finger sees the value first; a second tap on the same place opens it
    if (finger && i !== at) show(i, event.clientX, event.clientY);
    else if (i >= 0) open(i);
  });
  const MOVES = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -places.length, End: places.length };
  over.addEventListener("keydown", (event) => {
    if (event.key === "Escape") show(-1);
    else if ((event.key === "Enter" || event.key === " ") && at >= 0) open(at);
    else if (MOVES[event.key]) {
      const i = at < 0 ? 0 : Math.max(0, Math.min(places.length - 1, at + MOVES[event.key]));
      const box = over.getBoundingClientRect();
      const middle = start(i + 0.5);
      show(i, box.left + (down ? 0.5 : middle) * box.width, box.top + (down ? middle : 0) * box.height);
      said.textContent = places[i].lines.join(", ");
    } else return;
    event.preventDefault();
  });
  over.addEventListener("blur", () => show(-1));

  /** Places of the layers that a finding was asked for. */
  state.on("finding visible", () => {
    const chosen = new Set(state.finding ? state.visible : []);
    const marked = rows.flatMap(([first, last], i) => (d3.range(first, last + 1).some((row) => chosen.has(row)) ? [i] : []));
    marks.replaceChildren(
      ...marked.map((i) => {
        const mark = make("div", { class: "marked" });
        lay(mark, i);
        return mark;
      }),
    );
  });
}
