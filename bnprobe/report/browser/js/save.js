/* What a reader takes along: a panel as PNG, SVG or CSV, a link to what is shown, the summary as text. */

const INLINED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-size", "font-weight", "font-family", "text-anchor", "paint-order"];

/** Rows of values as a file of comma-separated values. */
function csvOf(rows) {
  const cell = (value) => {
    const text = typeof value === "number" ? (Number.isNaN(value) ? "" : String(Number(value.toPrecision(6)))) : String(value ?? "");
    return /[\x22,\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

/** A copy of an SVG that looks the same outside the page, on `width` by `height`, over a canvas if there is one. */
function aloneSvg(svg, canvas, paper) {
  const box = svg.getBoundingClientRect();
  const [width, height] = [Math.round(box.width), Math.round(box.height)];
  const copy = svg.cloneNode(true);
  const [from, to] = [[svg, ...svg.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of INLINED) to[i].style.setProperty(name, style.getPropertyValue(name));
  });
  const make = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const under = [make("rect", { width: "100%", height: "100%", fill: paper })];
  if (canvas?.width) under.push(make("image", { width: canvas.clientWidth, height: canvas.clientHeight, href: canvas.toDataURL() }));
  if (!copy.getAttribute("viewBox")) copy.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const whole = make("svg", { xmlns: "http://www.w3.org/2000/svg", width, height });
  for (const [key, value] of [["width", width], ["height", height]]) copy.setAttribute(key, value);
  copy.removeAttribute("class");
  whole.append(...under, copy);
  return { text: new XMLSerializer().serializeToString(whole), width, height };
}

/** Twice the size of the screen, for slides. */
async function pngOf({ text, width, height }) {
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d").drawImage(picture, 0, 0, 2 * width, 2 * height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function download(content, name, ending, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const safe = name.normalize("NFKD").replace(/[^\w.-]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 80) || "figure";
  const link = make("a", { href: url, download: `${safe}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/** Text to the clipboard, by the old way where the new one is not allowed. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = make("textarea", { "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** `address()` is what the page shows now, as the end of a link to it. */
function newSave(root, address) {
  const link = (end) => window.location.href.replace(/#.*$/, "") + end;

  /** A button that says for a moment that it did what it says. */
  function doing(words, act) {
    const [first, ...rest] = words.split(" ");
    const said = [first, make("span", { class: "if-room" }, ` ${rest.join(" ")}`)];
    const button = make("button", { type: "button", onclick: async () => {
      const done = await act();
      button.textContent = done === false ? "did not work" : "done";
      setTimeout(() => button.replaceChildren(...said), 1500);
    } }, ...said);
    return button;
  }

  /** The menu of one panel, `label` in words. `parts()` are its SVG and canvas, or null; `rows()` its numbers, or null. */
  function menu(label, name, parts, rows, end) {
    const buttons = [];
    if (parts) {
      const svg = () => aloneSvg(...parts(), inks(root).paper);
      buttons.push(
        doing("PNG", async () => download(await pngOf(svg()), name(), "png")),
        doing("SVG", () => download(svg().text, name(), "svg", "image/svg+xml")),
      );
    }
    if (rows) buttons.push(doing("CSV", async () => download(csvOf(await rows()), name(), "csv", "text/csv")));
    buttons.push(doing("copy link", () => copyText(link(end()))));
    return make("details", { class: "save" }, make("summary", {}, "Save", make("span", { class: "visually-hidden" }, ` ${label}`)), make("span", { class: "saves" }, ...buttons));
  }

  function panel(plot, name) {
    plot.heading.before(menu(plot.heading.textContent, name, () => [plot.svg.node(), plot.canvas], plot.rows ?? null, address));
  }

  function table(element, rows, name) {
    element.prepend(menu("all channels", () => `${name()} channels`, null, rows, address));
  }

  function map(host, store, state) {
    const rows = async () => {
      const values = await store.column(state.measure);
      const named = state.measure === "role";
      const found = [["layer", "call", "channel", state.measure]];
      for (const i of state.visible) {
        const layer = store.manifest.layers[i];
        for (let c = 0; c < layer.n; c++) found.push([layer.name, layer.call + 1, c, named ? store.manifest.roles[values[layer.start + c]] : values[layer.start + c]]);
      }
      return found;
    };
    host.prepend(menu("the map", () => `map ${state.measure}`, () => [host.querySelector(".board svg"), host.querySelector(".board canvas")], rows, address));
  }

  /** The still figures of the chapters, with the numbers below them where there are any. */
  function figures() {
    for (const figure of root.querySelectorAll("main figure:not(.still)")) {
      const part = figure.closest("section[id], details[id]");
      const svg = () => [figure.querySelector("svg"), null];
      const name = `${part?.id ?? "figure"} ${figure.className}`.trim();
      const table = figure.dataset.along ? part?.querySelector(".as-table table") : null;
      const numbers = figure.nextElementSibling?.matches(".numbers") ? figure.nextElementSibling : null;
      const inTable = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
      const rows = numbers ? () => numbersOf(numbers) : table ? inTable : null;
      figure.append(menu(name, () => name, svg, rows, () => `#${part?.id ?? ""}`));
    }
  }

  /** The verdict and the findings as plain text. */
  function summary() {
    const said = (selector) => [...root.querySelectorAll(selector)].map((element) => element.textContent.replace(/\s+/g, " ").trim()).filter(Boolean);
    const text = () => [
      ...said("header h1"),
      ...said("header .lead").map((words) => words.replace(/ Details$/, "")),
      "",
      ...said(".headline p, #answer > p:not(.note)"),
      "",
      ...said(".finding h3").map((words) => `- ${words}`),
    ].join("\n");
    return doing("copy summary", () => copyText(text()));
  }

  return { panel, table, map, figures, summary };
}
