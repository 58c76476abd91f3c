/* The table of one layer's channels: sorted by any column, searched by number or by a condition, opened by row. */

const ROWS = 40;
const CONDITION = /^\s*([a-z_]\w*)\s*(<=|>=|!=|[<>=])\s*(.+?)\s*$/i;
const COMPARE = {
  "<": (a, b) => a < b,
  ">": (a, b) => a > b,
  "<=": (a, b) => a <= b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};

/** What a search asks of a channel: a number, a role by its words or value, or a condition such as "fires < 0.01"; null if not understood. */
function search(text, columns, roles, labels) {
  const wanted = text.trim();
  if (!wanted) return () => true;
  if (/^\d+$/.test(wanted)) return (c) => c === Number(wanted);
  const found = CONDITION.exec(wanted.replace("−", "-"));
  if (found && columns[found[1]]) {
    const value = found[1] === "role" ? roles.indexOf(found[3]) : Number(found[3]);
    if (Number.isNaN(value)) return null;
    return (c) => COMPARE[found[2]](columns[found[1]][c], value);
  }
  const code = Math.max(roles.indexOf(wanted), labels.indexOf(wanted));
  return code >= 0 && columns.role ? (c) => columns.role[c] === code : null;
}

function newTable(store, state, open) {
  const head = make("tr");
  const body = make("tbody");
  const table = make("table", {}, make("caption", { class: "visually-hidden" }, "Channels of the layer"), make("thead", {}, head), body);
  const frame = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "channels of the layer" }, table);
  const input = make("input", { type: "search", placeholder: "17, dead, fires < 0.01", "aria-label": "Search channels", oninput: () => refill() });
  const only = make("input", { type: "checkbox", onchange: () => refill() });
  const onlyLabel = make("label", { class: "choice" }, only, make("span", {}, "selected only"));
  const said = make("span", { class: "note", role: "status" });
  const more = make("button", { type: "button", class: "more", onclick: () => fill(limit + 200) }, "Show more");
  const tools = make("div", { class: "tools" }, make("label", { class: "choice" }, make("span", {}, "Search channels"), input), onlyLabel, said);
  const { leftOut } = store.manifest;
  const room = leftOut.length ? `Not on this page, but in report.channels: ${leftOut.join(", ")}.` : "";
  const folded = make("details", { class: "all-channels", ontoggle: () => folded.open && now && draw(now.layer, now.columns) }, make("summary", {}, "All channels as a table"), tools, frame, more, make("p", { class: "note" }, room));
  const element = make("div", { class: "panel wide" }, folded);
  let sort = { by: "", down: true };
  let now = null;
  let limit = ROWS;
  let rows = [];

  function draw(layer, columns) {
    const names = store.names.filter((name) => columns[name] && columns[name].some((v) => !Number.isNaN(v)));
    if (!names.includes(sort.by) && sort.by !== "channel") sort = { by: store.manifest.sort.find((n) => names.includes(n)) ?? "channel", down: true };
    if (now?.layer !== layer) input.value = "";
    now = { layer, columns, names };
    only.checked = Boolean(state.picked && pickedIn(state.picked, layer));
    onlyLabel.hidden = !only.checked;
    if (!folded.open) return;
    drawHead();
    refill();
  }

  function drawHead() {
    head.replaceChildren(
      ...["channel", ...now.names].map((name) => {
        const { meaning, unit } = store.manifest.columns[name] ?? { meaning: "Index of the channel.", unit: "" };
        const direction = sort.by === name ? (sort.down ? "descending" : "ascending") : "none";
        const title = unit ? `${meaning} Unit: ${unit}.` : meaning;
        const button = make("button", { type: "button", title, onclick: () => by(name) }, name);
        return make("th", { scope: "col", "aria-sort": direction }, button);
      }),
    );
  }

  function by(name) {
    sort = { by: name, down: sort.by === name ? !sort.down : name !== "channel" };
    drawHead();
    refill();
    [...head.children].find((th) => th.textContent === name)?.firstChild.focus();
  }

  /** Shifts, skews, weights and whatever has two sides are sorted by size. */
  function key(c) {
    if (sort.by === "channel") return c;
    const value = now.columns[sort.by][c];
    if (Number.isNaN(value)) return -Infinity;
    return store.manifest.paints[sort.by]?.centre === 0 ? Math.abs(value) : value;
  }

  function refill() {
    const { layer, columns } = now;
    const passes = search(input.value, columns, store.manifest.roles, store.manifest.roleLabels);
    input.setAttribute("aria-invalid", passes ? "false" : "true");
    rows = [];
    for (let c = 0; c < layer.n; c++) {
      if ((!only.checked || !state.picked || state.picked[layer.start + c]) && (!passes || passes(c))) rows.push(c);
    }
    rows.sort((a, b) => (sort.down ? key(b) - key(a) : key(a) - key(b)) || a - b);
    fill(ROWS);
    if (!passes) said.textContent = "not understood: give a channel's number, a role, or a condition like fires < 0.01";
  }

  function fill(most) {
    limit = most;
    const { layer, columns, names } = now;
    body.replaceChildren(
      ...rows.slice(0, limit).map((c) => {
        const opened = make("button", { type: "button", onclick: () => open(c) }, String(c));
        const cells = names.map((name) => {
          const text = name === "role" ? (store.manifest.roleLabels[columns.role[c]] ?? MISSING) : number(columns[name][c]);
          return make("td", name === "role" ? { class: "word" } : {}, text);
        });
        return make("tr", c === state.channel ? { class: "opened", "aria-current": "true" } : {}, make("th", { scope: "row" }, opened), ...cells);
      }),
    );
    said.textContent = rows.length === layer.n ? count(layer.n, "channel") : `${rows.length.toLocaleString("en-US")} of ${count(layer.n, "channel")}`;
    more.hidden = rows.length <= limit;
  }

  /** All channels of the layer, in the order of the table where it is open. */
  function all() {
    const { layer, columns, names } = now;
    const order = folded.open && rows.length ? rows : d3.range(layer.n);
    return [["layer", "channel", ...names], ...order.map((c) => [layer.name, c, ...names.map((name) => (name === "role" ? store.manifest.roles[columns.role[c]] : columns[name][c]))])];
  }

  return { element, draw, rows: all };
}
