/* The page's own tables: sorted by a click on a head, and searched. */

/** The number that a cell shows, for sorting; the words where it is none. */
function cellValue(cell) {
  const text = cell.textContent.trim();
  if (text === MISSING) return null;
  const plain = text.replaceAll("−", "-").replaceAll(",", "").replace("∞", "Infinity").replace(/\s?%$/, "");
  const value = Number(plain);
  return plain !== "" && !Number.isNaN(value) ? value : text.toLowerCase();
}

function compareCells(a, b) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

/** Gives every table of the page heads that sort, and those with many rows a search. */
function wakeTables(root) {
  for (const part of root.querySelectorAll(".numbers")) part.addEventListener("toggle", () => numbersAsTable(part), { once: true });
  for (const table of root.querySelectorAll("main table, .fragment table")) {
    // brief ones give way to whole ones where scripts run
    if (table.closest(".stage, .brief") || table.matches(".overlap")) continue;
    const heads = [...table.querySelectorAll("thead th")];
    const body = table.tBodies[0];
    if (!body || body.rows.length < 2) continue;
    heads.forEach((th, k) => {
      const button = make("button", { type: "button", title: th.title }, ...th.childNodes);
      th.removeAttribute("title");
      th.append(button);
      th.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = th.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [cellValue(row.cells[k]), row]);
        rows.sort(([a], [b]) => (a === null || b === null ? compareCells(a, b) : (down ? -1 : 1) * compareCells(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
    if (body.rows.length > 12) addSearch(table, body);
  }
}

/** What a picture by depth shows, as rows of words: the heads first. */
function numbersOf(part) {
  return part.querySelector("pre").textContent.split("\n").map((line) => line.split("\u2003"));
}

/** Its table, made when a reader asks for it; the text stays for what is copied and saved. */
function numbersAsTable(part) {
  const [heads, ...rows] = numbersOf(part);
  const of = (row, first) => make("tr", {}, ...row.map((words, k) => make("td", k ? {} : { class: first }, words)));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((words, k) => make("th", { scope: "col", class: k ? "" : "word" }, words)))),
    make("tbody", {}, ...rows.map((row) => of(row, "word"))));
  const label = `table: ${part.previousElementSibling.querySelector("[role=img]").getAttribute("aria-label")}`;
  part.querySelector("pre").hidden = true;
  part.append(make("div", { class: "table" }, make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table)));
}

function addSearch(table, body) {
  const said = make("span", { class: "note", role: "status" });
  const input = make("input", {
    type: "search",
    oninput: () => {
      const wanted = input.value.trim().toLowerCase();
      let n = 0;
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        n += !row.hidden;
      }
      said.textContent = wanted ? `${n} of ${count(body.rows.length, "row")}` : "";
    },
  });
  const tools = make("div", { class: "tools" }, make("label", { class: "choice" }, make("span", {}, "Search rows"), input), said);
  table.closest(".scroll").before(tools);
}
