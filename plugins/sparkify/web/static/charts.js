// Charts by ECharts, drawn again when the theme or the width changes.

import * as echarts from "./vendor/echarts-6.1.0.esm.min.js";
import { element, written } from "./elements.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// options: returns ECharts' options in the colors of the theme. label: what the chart shows, for who cannot see it.
export function chart(parent, label, height, options) {
  const place = element("div", { class: "chart", role: "img", "aria-label": label });
  place.style.height = `${height}px`;
  parent.append(place);
  const drawing = echarts.init(place, null, { renderer: "svg" });
  const draw = () =>
    drawing.setOption(
      {
        animation: false,
        textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: color("text") },
        color: [color("paid"), color("free")],
        grid: { left: 8, right: 8, top: 32, bottom: 4, containLabel: true },
        ...options(color),
      },
      true,
    );
  draw();
  addEventListener("themechange", draw);
  // It is told, too, when the chart is taken off the page.
  const observer = new ResizeObserver(() => {
    if (place.isConnected) return drawing.resize();
    removeEventListener("themechange", draw);
    observer.disconnect();
    drawing.dispose();
  });
  observer.observe(place);
}

const axis = (color) => ({
  axisLine: { lineStyle: { color: color("line") } },
  axisLabel: { color: color("quiet"), hideOverlap: true },
  axisTick: { show: false },
  splitLine: { lineStyle: { color: color("line") } },
});

const tooltip = (color) => ({
  trigger: "axis",
  backgroundColor: color("panel"),
  borderColor: color("line"),
  textStyle: { color: color("text") },
  confine: true,
  valueFormatter: written,
});

const SHORT_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const day = (text) => `${Number(text.slice(8, 10))} ${SHORT_MONTHS[Number(text.slice(5, 7)) - 1]}`;

// series: [name, value of a row], stacked bars or lines over the days of the rows.
export function overDays(parent, label, rows, type, series) {
  chart(parent, label, 260, (color) => ({
    tooltip: tooltip(color),
    legend: {
      top: 0,
      left: 0,
      icon: "roundRect",
      itemWidth: 12,
      itemHeight: 12,
      textStyle: { color: color("text") },
    },
    xAxis: {
      type: "category",
      data: rows.map((row) => row.listening_day),
      ...axis(color),
      axisLabel: { ...axis(color).axisLabel, formatter: day },
    },
    yAxis: { type: "value", minInterval: 1, ...axis(color) },
    series: series.map(([name, value]) => ({
      name,
      type,
      stack: type === "bar" ? "all" : undefined,
      barCategoryGap: "25%",
      symbol: "none",
      lineStyle: { width: 2 },
      data: rows.map(value),
    })),
  }));
}

export const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

// The week begins on Monday, as it does for most people, though Redshift's begins on Sunday.
const WEEK = [1, 2, 3, 4, 5, 6, 0];

export function hoursOfTheWeek(parent, label, rows) {
  chart(parent, label, 260, (color) => ({
    tooltip: {
      ...tooltip(color),
      trigger: "item",
      formatter: ({ value: [hour, weekday, plays] }) =>
        `${WEEKDAYS[WEEK[weekday]]} ${String(hour).padStart(2, "0")}:00: <b>${written(plays)}</b> plays`,
    },
    grid: { left: 8, right: 8, top: 4, bottom: 4, containLabel: true },
    xAxis: { type: "category", data: [...Array(24).keys()], ...axis(color), splitLine: { show: false } },
    yAxis: {
      type: "category",
      inverse: true,
      data: WEEK.map((weekday) => WEEKDAYS[weekday]),
      ...axis(color),
      splitLine: { show: false },
    },
    visualMap: {
      show: false,
      min: 0,
      max: Math.max(...rows.map((row) => row.plays)),
      inRange: { color: [color("heat-low"), color("heat-high")] },
    },
    series: [
      {
        type: "heatmap",
        data: rows.map((row) => [row.hour, WEEK.indexOf(row.weekday), row.plays]),
        itemStyle: { borderColor: color("panel"), borderWidth: 2, borderRadius: 3 },
      },
    ],
  }));
}
