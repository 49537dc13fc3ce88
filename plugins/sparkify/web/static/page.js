// The page: its two views, and the theme, which is Airflow's.

import { element } from "./elements.js";
import { showListening } from "./listening.js";
import { showPipeline } from "./pipeline.js";

// Our names of colors, and those of Airflow's design system for the same.
const COLORS = { page: "bg", panel: "bg-panel", text: "fg", quiet: "fg-muted", line: "border" };
const VIEWS = { listening: showListening, pipeline: showPipeline };

function show() {
  const [asked, given] = location.hash.slice(1).split("?");
  const name = asked in VIEWS ? asked : "listening";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const view = element("div", { class: "view", id: name });
  document.querySelector("main").replaceChildren(view);
  VIEWS[name](view, new URLSearchParams(given));
}

// Airflow shows the page in a frame, and keeps its theme as a class of its own document. Without a frame there are
// none of its colors, and the style sheet's own are used.
function followTheme() {
  const airflow = window.parent.document.documentElement;
  const page = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    const chosen = ["dark", "light"].find((theme) => airflow.classList.contains(theme));
    const theme = chosen ?? (system.matches ? "dark" : "light");
    if (page.dataset.theme === theme) return;
    page.dataset.theme = theme;
    for (const [ours, theirs] of Object.entries(COLORS)) {
      page.style.setProperty(
        `--${ours}`,
        getComputedStyle(airflow).getPropertyValue(`--chakra-colors-${theirs}`),
      );
    }
    dispatchEvent(new Event("themechange"));
  };
  new MutationObserver(follow).observe(airflow, { attributeFilter: ["class"] });
  system.addEventListener("change", follow);
  follow();
}

followTheme();
addEventListener("hashchange", show);
show();
