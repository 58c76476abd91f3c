/* The line above the page that stays: contents with the current section, search, light or dark, the summary to take along. */

const MOST_HITS = 12;

function wakeDesk(root, store, state, save) {
  const nav = root.querySelector("nav");
  const host = nav?.querySelector("[data-bnp=desk]");
  if (!host) return;
  host.append(newSearch(root, store, state), newTheme(root), save.summary());
  followSections(root, nav);
}

/** Marks the link of the section that is being read. */
function followSections(root, nav) {
  const links = new Map([...nav.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
  const seen = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
      const current = [...links.keys()].find((id) => seen.has(id));
      if (!current) return;
      for (const [id, link] of links) {
        if (id === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      const [link, list] = [links.get(current), nav.querySelector(".contents")];
      list.scrollLeft = Math.max(0, link.offsetLeft - list.offsetLeft - 40);
    },
    { rootMargin: "-10% 0px -70% 0px" },
  );
  for (const id of links.keys()) {
    const section = root.ownerDocument.getElementById(id);
    if (section) observer.observe(section);
  }
}

/** Layers, chapters, findings and rules by a part of their name; a slash leads here. */
function newSearch(root, store, state) {
  const list = make("ul", { class: "hits", role: "listbox", id: "bnprobe-hits", "aria-label": "search results", hidden: true });
  const input = make("input", {
    type: "search",
    placeholder: "Search  /",
    "aria-label": "Search layers and chapters",
    role: "combobox",
    "aria-expanded": "false",
    "aria-controls": "bnprobe-hits",
    "aria-autocomplete": "list",
    autocomplete: "off",
  });
  let hits = [];
  let at = -1;

  function places() {
    const layers = store.manifest.layers.map((layer, i) => ({ title: layer.title, kind: "layer", go: () => state.set({ layer: i, channel: -1 }) }));
    const sections = [...root.querySelectorAll("main section[id] > h2, main details[id] > summary > :is(h2, h3)")].map((head) => {
      const part = head.closest("[id]");
      return { title: head.firstChild.textContent.trim(), kind: part.id.startsWith("rule-") ? "rule" : "chapter", go: () => leadTo(part) };
    });
    return [...sections, ...layers];
  }

  function leadTo(part) {
    for (let outer = part; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
    if (window.location.hash !== `#${part.id}`) window.history.pushState(null, "", `#${part.id}`);
    part.scrollIntoView({ block: "start" });
  }

  function show() {
    const wanted = input.value.trim().toLowerCase();
    const named = wanted ? places().filter((place) => place.title.toLowerCase().includes(wanted)) : [];
    hits = named.slice(0, MOST_HITS);
    at = hits.length ? 0 : -1;
    list.replaceChildren(
      ...hits.map((hit, k) => make("li", { role: "option", id: `bnprobe-hit-${k}`, onpointerdown: (event) => (event.preventDefault(), take(k)) }, hit.title, make("span", { class: "note" }, ` ${hit.kind}`))),
    );
    if (wanted && !hits.length) list.append(make("li", { role: "option", "aria-disabled": "true", class: "note" }, "nothing has this name"));
    if (named.length > hits.length) list.append(make("li", { role: "option", "aria-disabled": "true", class: "note" }, `the first ${hits.length} of ${named.length.toLocaleString("en-US")}`));
    list.hidden = !wanted;
    input.setAttribute("aria-expanded", String(!list.hidden));
    mark();
  }

  function mark() {
    [...list.children].forEach((li, k) => li.setAttribute("aria-selected", String(k === at)));
    if (at >= 0) input.setAttribute("aria-activedescendant", `bnprobe-hit-${at}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function take(k) {
    const hit = hits[k];
    drop();
    input.blur();
    hit?.go();
  }

  function drop() {
    input.value = "";
    show();
  }

  input.addEventListener("input", show);
  input.addEventListener("blur", () => (list.hidden = true));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") drop();
    else if (event.key === "Enter") take(at);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at = hits.length ? (at + (event.key === "ArrowDown" ? 1 : hits.length - 1)) % hits.length : -1;
      mark();
    } else return;
    event.preventDefault();
  });
  root.ownerDocument.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
    event.preventDefault();
    input.focus();
  });
  return make("div", { class: "search" }, input, list);
}

/** Light or dark, against what the system says. */
function newTheme(root) {
  const dark = () => d3.lab(inks(root).paper).l < 50;
  const button = make("button", { type: "button" });
  const name = () => {
    button.textContent = dark() ? "☀" : "☾";
    button.setAttribute("aria-label", dark() ? "light style" : "dark style");
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    const to = dark() ? "as-light" : "as-dark";
    root.classList.remove("as-light", "as-dark");
    root.classList.add(to);
    root.dispatchEvent(new Event("restyled"));
    name();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (forgetInks(), name()));
  name();
  return button;
}
