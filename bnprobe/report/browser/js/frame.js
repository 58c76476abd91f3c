/* Small things of the document that every panel needs: elements, canvases, axes, the words beside the pointer. */

/** An element with attributes and children; text is always text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A labelled list of choices, [value, words] each. */
function choice(label, choices, value, changed) {
  const select = make("select", { onchange: () => changed(select.value) });
  for (const [name, words] of choices) select.append(make("option", { value: name }, words));
  select.value = value;
  return make("label", { class: "choice" }, make("span", {}, label), select);
}

/** A canvas that is sharp on every screen: `draw` gets a context in CSS pixels. */
function sizeCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/**
 * A framed plot: a canvas for marks below an SVG for axes. `title` stands above.
 * `size()` gives the inner width and height and clears both.
 */
function newPlot(title, height, margin, description) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const svg = d3.create("svg").attr("role", "img").attr("aria-label", description);
  const body = make("div", { class: "plot" }, canvas, svg.node());
  const heading = make("h4", {}, title);
  const note = make("p", { class: "note" });
  const element = make("div", { class: "panel" }, heading, body, note);
  let width = 320;
  /** Reads the width: all plots before any draws, as a page that is written and read in turns is laid out each time. */
  function measure() {
    width = Math.max(element.clientWidth || 320, 200);
  }
  function size() {
    body.style.height = `${height}px`;
    const context = sizeCanvas(canvas, width, height);
    svg.attr("width", width).attr("height", height).attr("viewBox", `0 0 ${width} ${height}`).selectAll("*").remove();
    context.translate(margin.left, margin.top);
    const inner = svg.append("g").attr("transform", `translate(${margin.left},${margin.top})`);
    return { context, inner, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  }
  return { element, canvas, svg, heading, note, measure, size, margin };
}

/** Axes of a plot with their labels; `format` writes the ticks. */
function drawAxes(inner, x, y, width, height, labels, format = {}) {
  if (x) {
    const axis = d3.axisBottom(x).ticks(Math.max(width / 80, 2)).tickSizeOuter(0).tickSize(4);
    const drawn = inner.append("g").attr("class", "axis").attr("transform", `translate(0,${height})`);
    drawn.call(format.xTicks ? axis.tickValues(format.xTicks).tickFormat(tick) : axis.tickFormat(tick));
    drawn.append("text").attr("class", "label").attr("x", width / 2).attr("y", 32).style("text-anchor", "middle").text(labels.x);
  }
  if (y) {
    const axis = d3.axisLeft(y).ticks(Math.max(height / 45, 2)).tickSizeOuter(0).tickSize(4);
    const drawn = inner.append("g").attr("class", "axis");
    drawn.call(format.yTicks ? axis.tickValues(format.yTicks).tickFormat(tick) : axis.tickFormat(tick));
    drawn.append("text").attr("class", "label").attr("x", -40).attr("y", -9).style("text-anchor", "start").text(labels.y);
  }
}

/** At most `most` round numbers for a logarithmic axis, evenly to the eye, however narrow its range. */
function logTicks(low, high, most = 5) {
  if (high / low < 2) return d3.ticks(low, high, most - 1);
  const fine = d3.range(20, 200).map((step) => step / 20);
  for (const mantissas of [fine, [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let e = Math.floor(Math.log10(low)) - 1; e <= Math.log10(high) + 1; e++) {
      for (const m of mantissas) {
        const tick = m * 10 ** e;
        if (tick >= low * 0.9999 && tick <= high * 1.0001) ticks.push(tick);
      }
    }
    if (ticks.length <= most) return ticks;
    if (mantissas.length === 1) return ticks.filter((_, i) => i % Math.ceil(ticks.length / most) === 0);
  }
  return [];
}

/** Words that follow the pointer, or stand beside what the keyboard is on. */
function newTip(root) {
  const element = make("div", { class: "tip", hidden: true, role: "presentation" });
  root.append(element);
  function show(x, y, lines) {
    element.replaceChildren(...lines.map((line, i) => make(i ? "span" : "b", {}, line)));
    element.hidden = false;
    const width = element.offsetWidth;
    const height = element.offsetHeight;
    const left = x + 14 + width > window.innerWidth ? Math.max(x - 14 - width, 4) : x + 14;
    const top = y + 14 + height > window.innerHeight ? Math.max(y - 14 - height, 4) : y + 14;
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
  }
  return { show, hide: () => (element.hidden = true) };
}

const SEVERITIES = ["critical", "warning", "info"];

/** The most severe of some findings, or "". */
function worst(findings) {
  return SEVERITIES.find((severity) => findings.some((finding) => finding.severity === severity)) || "";
}
