// What both views are made of: elements, answers of the warehouse, tables, and how values are written.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

// Text only ever becomes text: what came from the sources' JSON is never read as HTML.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

export function written(value) {
  if (value == null) return "–";
  if (typeof value === "number") return NUMBER.format(value);
  const moment = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)/.exec(value);
  return moment ? `${moment[1]} ${moment[2]}` : String(value);
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = count ? Math.min(Math.floor(Math.log10(count) / 3), units.length - 1) : 0;
  return `${NUMBER.format(count / 1000 ** power)} ${units[power]}`;
}

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 60) return `${NUMBER.format(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function address(name, values = {}) {
  const query = new URLSearchParams(values).toString();
  return `api/${name}${query ? `?${query}` : ""}`;
}

export async function get(name, values) {
  const response = await fetch(address(name, values));
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

// The rows of an answer as objects.
export async function ask(name, values) {
  const answer = await get(name, values);
  const rows = answer.rows.map((row) =>
    Object.fromEntries(answer.columns.map((column, i) => [column, row[i]])),
  );
  return { ...answer, rows };
}

// columns: [heading, value of a row, options], where options.bar draws the number as a bar, too.
export function table(caption, columns, rows) {
  const largest = columns.map(([, value, { bar } = {}]) => (bar ? Math.max(...rows.map(value), 1) : 0));
  const cell =
    (row) =>
    ([, value, { bar, numeric = bar } = {}], column) => {
      const found = value(row);
      const made = element("td", { class: numeric ? "number" : null });
      made.append(found instanceof Node ? found : written(found));
      if (bar) {
        made.classList.add("bar");
        made.style.setProperty("--share", found / largest[column]);
      }
      return made;
    };
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", { class: "hidden" }, caption),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          columns.map(([heading, , { bar, numeric = bar } = {}]) =>
            element("th", { scope: "col", class: numeric ? "number" : null }, heading),
          ),
        ),
      ),
      element(
        "tbody",
        {},
        rows.map((row) => element("tr", {}, columns.map(cell(row)))),
      ),
    ),
  );
}

// A card: what a question's answer shows, with its SQL and its rows to take away.
export function card(title, name, { values = {}, wide = false, draw, failed = () => {} }) {
  const body = element(
    "div",
    { class: "body", "aria-busy": "true" },
    element("p", { class: "quiet" }, "Asking the warehouse …"),
  );
  const foot = element("footer");
  const made = element(
    "section",
    { class: wide ? "card wide" : "card", id: `card-${name}` },
    element("h2", {}, title),
    body,
    foot,
  );
  ask(name, values)
    .then((answer) => {
      body.replaceChildren();
      if (answer.rows.length) draw(body, answer.rows);
      else body.append(element("p", { class: "quiet" }, "Nothing to show."));
      foot.append(
        element("span", { class: "quiet" }, `as of ${answer.as_of.slice(11, 16)} UTC`),
        element("a", { href: address(`${name}.csv`, values), download: true }, "CSV"),
        element(
          "details",
          {},
          element("summary", {}, "SQL"),
          element("p", { class: "quiet" }, answer.description),
          element("pre", { tabindex: "0" }, answer.sql.trim()),
        ),
      );
    })
    .catch((error) => {
      body.replaceChildren(element("p", { class: "problem", role: "alert" }, error.message));
      failed();
    })
    .finally(() => body.removeAttribute("aria-busy"));
  return made;
}

export function tile(label, value, note) {
  return element(
    "div",
    { class: "tile" },
    element("dt", {}, label),
    element("dd", {}, value, note ? element("small", {}, note) : null),
  );
}
