// How the pipeline is doing: files in quarantine, runs, files, checks, and rejected rows.

import { ask, bytes, card, duration, element, get, table, tile, written } from "./elements.js";

const NUMERIC = { numeric: true };
const DATASETS = ["staging_events", "staging_songs", "fact_songplays"];
const PAGE = 50;
const MOST_QUARANTINED = 200; // as include/sql/operations/quarantined_files.sql has it

// `given` are the first filters of the rejected rows.
export function showPipeline(view, given) {
  view.append(
    quarantine(),
    newest(),
    element(
      "div",
      { class: "grid" },
      runs(),
      card("Files", "files_by_dataset", {
        wide: true,
        draw: (body, rows) =>
          body.append(
            table(
              "Files by dataset",
              [
                ["Dataset", (row) => row.dataset],
                ["Loaded", (row) => row.loaded_files, NUMERIC],
                ["Quarantined", (row) => row.quarantined_files, NUMERIC],
                ["Ignored", (row) => row.ignored_files, NUMERIC],
                ["Size of loaded", (row) => bytes(row.loaded_bytes), NUMERIC],
                ["Newest file", (row) => row.newest_file],
                ["Last loaded", (row) => row.last_loaded],
              ],
              rows,
            ),
          ),
      }),
      card("Ignored files", "ignored_files", {
        wide: true,
        draw: (body, rows) =>
          body.append(
            table(
              "Ignored files by rule",
              [
                ["Dataset", (row) => row.dataset],
                ["Rule", (row) => row.reason],
                ["Files", (row) => row.files, NUMERIC],
                ["Example", (row) => row.example_key],
                ["Newest file", (row) => row.newest_file],
              ],
              rows,
            ),
          ),
      }),
      card("Checks", "check_results", { wide: true, draw: checks }),
      card("Why rows were rejected", "rejected_by_reason", {
        wide: true,
        draw: (body, rows) =>
          body.append(
            table(
              "Rejected rows by reason",
              [
                ["Dataset", (row) => row.dataset],
                ["Column", (row) => row.column_name],
                ["Reason", (row) => row.reason],
                ["Rows", (row) => row.rejected_rows, { bar: true }],
                ["Files", (row) => row.files, NUMERIC],
                ["Last", (row) => row.last_rejected],
              ],
              rows,
            ),
          ),
      }),
      rejectedRows(given),
    ),
  );
}

// A card that is shown only while a file is in quarantine, or if nobody can say whether one is.
function quarantine() {
  const made = card("Quarantined files", "quarantined_files", {
    draw: (body, rows) => {
      made.hidden = false;
      const code = (text) => element("code", {}, text);
      body.append(
        element(
          "p",
          {},
          "No row of these file versions was loaded. Upload a corrected version, and the next run loads it. To try" +
            " the same version again, trigger the DAG ",
          code("sparkify_etl"),
          " with the file's address, such as ",
          code(`s3://…/${rows[0].s3_key}`),
          ", as ",
          code("reload_prefix"),
          ". A file that you delete from S3 stays listed here.",
          rows.length < MOST_QUARANTINED ? null : ` Shown are the newest ${MOST_QUARANTINED}.`,
        ),
        table(
          "Quarantined files",
          [
            ["Since", (row) => row.loaded_at],
            ["File", (row) => row.s3_key],
            ["Reason", (row) => row.reason],
            ["Rows", (row) => row.rows_read, NUMERIC],
            ["Rejected", rejected, NUMERIC],
            ["Dataset", (row) => row.dataset],
          ],
          rows,
        ),
      );
    },
    failed: () => (made.hidden = false),
  });
  made.hidden = true;
  made.classList.add("alarm");
  return made;
}

// How many rows of a file were rejected, as a link that shows them below.
function rejected(row) {
  if (!row.rows_rejected) return row.rows_rejected;
  const filters = new URLSearchParams({ dataset: row.dataset, file: row.s3_key, run: row.run_id });
  return element("a", { href: `#pipeline?${filters}` }, written(row.rows_rejected));
}

function newest() {
  const tiles = element("dl", { class: "tiles" });
  ask("span_of_plays")
    .then(({ rows: [span] }) =>
      tiles.append(
        tile("Newest play", written(span.newest_play), "UTC"),
        tile("Plays in all", written(span.plays)),
      ),
    )
    .catch(() => {}); // each card says what is wrong
  return tiles;
}

const sum = (account, names, count) => names.reduce((all, name) => all + (account?.[name]?.[count] ?? 0), 0);

function runs() {
  const body = element("div", { class: "body" });
  const staged = ["staging_events", "staging_songs"];
  get("runs")
    .then((found) =>
      body.append(
        found.length
          ? table(
              "Last runs",
              [
                ["Started", (run) => run.start],
                ["Run", (run) => run.run_type],
                ["State", (run) => element("span", { class: `state ${run.state}` }, run.state)],
                ["Took", (run) => duration(run.seconds), NUMERIC],
                ["Files", (run) => (run.account ? sum(run.account, staged, "files") : null), NUMERIC],
                ["Rows staged", (run) => (run.account ? sum(run.account, staged, "staged") : null), NUMERIC],
                [
                  "Rejected",
                  (run) =>
                    run.account ? sum(run.account, [...staged, "load_fact_songplays"], "rejected") : null,
                  NUMERIC,
                ],
                [
                  "Quarantined",
                  (run) => (run.account ? sum(run.account, staged, "quarantined") : null),
                  NUMERIC,
                ],
                ["New plays", (run) => run.account?.load_fact_songplays?.inserted, NUMERIC],
                ["Plays changed", (run) => run.account?.load_fact_songplays?.updated, NUMERIC],
                [
                  "Note",
                  (run) =>
                    run.note?.replace(/^Loaded .*/, "") ||
                    (run.state === "success" && !run.account ? "nothing was new" : null),
                ],
              ],
              found,
            )
          : element(
              "p",
              { class: "quiet" },
              "No run yet. Trigger the DAG ",
              element("code", {}, "sparkify_etl"),
              ".",
            ),
      ),
    )
    .catch((error) => body.append(element("p", { class: "problem", role: "alert" }, error.message)));
  return element("section", { class: "card wide", id: "card-runs" }, element("h2", {}, "Last runs"), body);
}

// A row for each check, a cell for each run, the oldest on the left; the checks that passed in all of them are folded.
function checks(body, results) {
  const latest = new Map();
  for (const result of results) {
    const key = `${result.check_name}\n${result.run_id}`;
    if (!latest.has(key)) latest.set(key, result); // a run's latest try comes first
  }
  const runIds = [...new Set(results.map((result) => result.run_id))].reverse();
  // An hourly run and an audit each have checks that the other has not.
  const lastRun = (name) => runIds.findLast((runId) => latest.has(`${name}\n${runId}`));
  const now = (name) => latest.get(`${name}\n${lastRun(name)}`).failed_rows;
  const passed = (result) => !result.failed_rows || result.severity === "pass"; // what it found is tolerated
  const noticed = new Set(results.filter((result) => !passed(result)).map((result) => result.check_name));
  const names = [...new Set(results.map((result) => result.check_name))];
  const passing = names.filter((name) => !noticed.has(name));
  const outcome = (result) => {
    if (!result.failed_rows) return "passed";
    return `${written(result.failed_rows)} rows${passed(result) ? " are tolerated" : ""}`;
  };
  const cell = (name) => (runId) => {
    const result = latest.get(`${name}\n${runId}`);
    const state = !result
      ? "none"
      : passed(result)
        ? "passed"
        : result.severity === "warn"
          ? "warned"
          : "failed";
    const label = !result ? "not checked" : `${outcome(result)}, ${written(result.checked_at)}`;
    return element("span", { class: `result ${state}`, role: "img", "aria-label": label, title: label });
  };
  const rows = (caption, shown) =>
    table(
      caption,
      [
        ["Check", (name) => name],
        ["Last runs", (name) => element("span", { class: "results-row" }, runIds.map(cell(name)))],
        ["Rows now", now, NUMERIC],
      ],
      shown,
    );
  if (noticed.size) {
    const others = names
      .filter((name) => noticed.has(name))
      .sort((one, other) => (now(other) > 0) - (now(one) > 0));
    body.append(rows("Checks that warned or failed in the last runs", others));
  }
  body.append(
    element(
      "details",
      { class: "folded" },
      element("summary", {}, `${written(passing.length)} checks passed in the last runs`),
      rows("Checks that passed in the last runs", passing),
    ),
  );
}

function rejectedRows(given) {
  const found = element("div", { class: "body" });
  const dataset = element(
    "select",
    { name: "dataset" },
    element("option", { value: "" }, "every dataset"),
    DATASETS.map((name) => element("option", {}, name)),
  );
  const search = (name, placeholder) =>
    element("input", { type: "search", name, placeholder, value: given.get(name) ?? "" });
  const file = search("file", "part of the file's key");
  const reason = search("reason", "part of the reason");
  const run = search("run", "the run's whole id");
  const form = element(
    "form",
    { class: "range", "aria-label": "Rejected rows" },
    element("label", {}, "Dataset ", dataset),
    element("label", {}, "File ", file),
    element("label", {}, "Reason ", reason),
    element("label", {}, "Run ", run),
    element("button", {}, "Show"),
  );
  if (DATASETS.includes(given.get("dataset"))) dataset.value = given.get("dataset");
  let latest = 0;

  function show(page) {
    const mine = (latest += 1);
    ask("rejected_rows", { ...Object.fromEntries(new FormData(form)), page })
      .then(({ rows }) => mine === latest && found.replaceChildren(...content(rows, page)))
      .catch((error) =>
        found.replaceChildren(element("p", { class: "problem", role: "alert" }, error.message)),
      );
  }
  function content(rows, page) {
    if (!rows.length) return [element("p", { class: "quiet" }, "No rejected row.")];
    const all = rows[0].all_rows;
    const turn = (label, to, possible) =>
      element("button", { type: "button", disabled: !possible, onclick: () => show(to) }, label);
    return [
      table(
        "Rejected rows",
        [
          ["Rejected", (row) => row.rejected_at],
          ["File", (row) => row.s3_key],
          ["Line", (row) => row.line_number, NUMERIC],
          ["Column", (row) => row.column_name],
          ["Reason", (row) => row.reason],
          [
            "Text",
            (row) =>
              element(
                "details",
                {},
                element("summary", {}, row.raw_value ?? "whole line"),
                element("pre", { tabindex: "0" }, row.raw_line ?? ""),
              ),
          ],
        ],
        rows,
      ),
      element(
        "p",
        { class: "pages" },
        turn("Newer", page - 1, page > 0),
        ` ${written(page * PAGE + 1)} to ${written(page * PAGE + rows.length)} of ${written(all)} `,
        turn("Older", page + 1, (page + 1) * PAGE < all),
      ),
    ];
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show(0);
  });
  show(0);
  return element(
    "section",
    { class: "card wide", id: "card-rejected_rows" },
    element("h2", {}, "Rejected rows"),
    form,
    found,
  );
}
