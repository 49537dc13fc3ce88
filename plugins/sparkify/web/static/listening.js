// What people listen to, in a range of days.

import { hoursOfTheWeek, overDays } from "./charts.js";
import { ask, card, element, table, tile, written } from "./elements.js";

const DAY = 24 * 60 * 60 * 1000;
const PRESETS = [
  ["7 days", 7],
  ["28 days", 28],
  ["90 days", 90],
  ["All", Infinity],
];
const USUAL = 28;

const text = (date) => date.toISOString().slice(0, 10);

// Both days are within; a query's range ends where the next day begins.
const values = (from, to) => ({ range_start: text(from), range_end: text(new Date(+to + DAY)) });

export function showListening(view) {
  view.append(element("p", { class: "quiet" }, "Asking the warehouse …"));
  ask("span_of_plays")
    .then(({ rows: [span] }) => (span.plays ? withRange(view, span) : sayEmpty(view)))
    .catch((error) => view.replaceChildren(element("p", { class: "problem", role: "alert" }, error.message)));
}

function sayEmpty(view) {
  view.replaceChildren(
    element(
      "div",
      { class: "empty" },
      element("h2", {}, "Nothing was played yet"),
      element(
        "p",
        {},
        "The warehouse is empty. Trigger the DAG ",
        element("code", {}, "sparkify_etl"),
        ": its first run loads everything.",
      ),
    ),
  );
}

function withRange(view, span) {
  const oldest = new Date(`${span.oldest_play.slice(0, 10)}T00:00Z`);
  const newest = new Date(`${span.newest_play.slice(0, 10)}T00:00Z`);
  const limits = { type: "date", required: true, min: text(oldest), max: text(newest) };
  const from = element("input", { ...limits, "aria-label": "From", name: "from" });
  const to = element("input", { ...limits, "aria-label": "To", name: "to" });
  const results = element("div", { class: "results" });
  const presets = PRESETS.filter(([, days]) => days === Infinity || oldest < newest - (days - 1) * DAY);
  const buttons = presets.map(([label, days]) =>
    element("button", { type: "button", onclick: () => choose(days) }, label),
  );
  const form = element(
    "form",
    { class: "range", "aria-label": "Range" },
    element("div", { class: "group" }, buttons),
    element("label", {}, "From ", from),
    element("label", {}, "to ", to),
    element("span", { class: "quiet" }, "UTC"),
  );

  function choose(days) {
    from.value = text(new Date(Math.max(oldest, newest - (days - 1) * DAY)));
    to.value = text(newest);
    draw();
  }
  function draw() {
    to.setCustomValidity(from.value > to.value ? "The range ends before it begins." : "");
    if (!form.reportValidity()) return;
    const [first, last] = [new Date(from.value), new Date(to.value)];
    buttons.forEach((button, i) => {
      const start = Math.max(oldest, newest - (presets[i][1] - 1) * DAY);
      button.setAttribute("aria-pressed", +first === start && +last === +newest);
    });
    drawResults(results, first, last, oldest);
  }
  form.addEventListener("change", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  view.replaceChildren(form, results);
  choose(USUAL);
}

function drawResults(results, from, to, oldest) {
  const range = values(from, to);
  const top = (title, name, columns) =>
    card(title, name, { values: range, draw: (body, rows) => body.append(table(title, columns, rows)) });
  results.replaceChildren(
    totals(from, to, oldest),
    element(
      "div",
      { class: "grid" },
      card("Plays by day", "plays_by_day", {
        values: range,
        wide: true,
        draw: (body, rows) =>
          overDays(body, "Plays by day, paid and free", everyDay(rows, from, to), "bar", [
            ["Paid", (row) => row.paid_plays ?? 0],
            ["Free", (row) => row.free_plays ?? 0],
          ]),
      }),
      card("When people listen, UTC", "plays_by_weekday_and_hour", {
        values: range,
        draw: (body, rows) => hoursOfTheWeek(body, "Plays by weekday and hour, UTC", rows),
      }),
      card("Listeners by day", "active_users_by_day", {
        values: range,
        draw: (body, rows) =>
          overDays(body, "Listeners by day, and those who pay", everyDay(rows, from, to), "line", [
            ["Paying", (row) => row.paying_listeners ?? 0],
            ["All", (row) => row.listeners ?? 0],
          ]),
      }),
      top("Top songs", "top_songs", [
        ["Song", (row) => row.song_title],
        ["Artist", (row) => row.artist_name],
        ["Plays", (row) => row.plays, { bar: true }],
      ]),
      top("Top artists", "top_artists", [
        ["Artist", (row) => row.artist_name],
        ["Listeners", (row) => row.listeners, { numeric: true }],
        ["Plays", (row) => row.plays, { bar: true }],
      ]),
      top("Top locations", "top_locations", [
        ["Location", (row) => row.location],
        ["Listeners", (row) => row.listeners, { numeric: true }],
        ["Plays", (row) => row.plays, { bar: true }],
      ]),
      top("Most played without a known song", "plays_of_unknown_songs", [
        ["Song", (row) => row.song_title],
        ["Artist", (row) => row.artist_name],
        ["Plays", (row) => row.plays, { bar: true }],
      ]),
      top("Free against paid", "free_against_paid", [
        ["Level", (row) => row.level],
        ["Plays", (row) => row.plays, { bar: true }],
        ["Listeners", (row) => row.listeners, { numeric: true }],
        ["Plays a session", (row) => row.plays_per_session, { numeric: true }],
        ["Hours of music", (row) => row.hours_of_music, { numeric: true }],
      ]),
      top("Sessions", "session_length", [
        ["Began as", (row) => row.level],
        ["Sessions", (row) => row.sessions, { bar: true }],
        ["Plays, mean", (row) => row.mean_plays, { numeric: true }],
        ["Minutes, mean", (row) => row.mean_minutes, { numeric: true }],
        ["Minutes, most", (row) => row.most_minutes, { numeric: true }],
      ]),
      top("Share of plays of known songs", "catalogue_coverage", [
        ["Month", (row) => row.month.slice(0, 7)],
        ["Plays", (row) => row.plays, { numeric: true }],
        ["Of known songs", (row) => row.plays_of_known_songs, { numeric: true }],
        ["Percent", (row) => row.percent_known, { bar: true }],
      ]),
    ),
  );
}

// The sums, and how much more they are than in the same number of days before, if there were so many.
function totals(from, to, oldest) {
  const tiles = element("dl", { class: "tiles" });
  const days = (to - from) / DAY + 1;
  const before = new Date(from - days * DAY);
  const asked = [values(from, to)];
  if (before >= oldest) asked.push(values(before, new Date(from - DAY)));
  Promise.all(asked.map((range) => ask("totals", range)))
    .then((answers) => {
      const [now, then] = answers.map(({ rows: [row] }) => row);
      const change = (name) => {
        if (!then?.[name]) return null;
        const percent = (100 * (now[name] - then[name])) / then[name];
        return `${percent < 0 ? "−" : "+"}${written(Math.abs(percent))} % on the ${written(days)} days before`;
      };
      tiles.append(
        tile("Plays", written(now.plays), change("plays")),
        tile("Listeners", written(now.listeners), change("listeners")),
        tile("Of them paying", written(now.paying_listeners), change("paying_listeners")),
        tile("Hours of music", written(now.hours_of_music), change("hours_of_music")),
        tile(
          "Plays of known songs",
          now.plays ? `${written((100 * now.plays_of_known_songs) / now.plays)} %` : "–",
          null,
        ),
      );
    })
    .catch(() => {}); // each card says what is wrong
  return tiles;
}

function everyDay(rows, from, to) {
  const found = new Map(rows.map((row) => [row.listening_day, row]));
  const days = [];
  for (let day = +from; day <= +to; day += DAY) {
    const listening_day = text(new Date(day));
    days.push(found.get(listening_day) ?? { listening_day });
  }
  return days;
}
