"use strict";
// Light, dark, or what the reader's machine says; remembered where the browser lets a page from disk remember.
const theme = (() => {
  const order = ["auto", "light", "dark"], root = document.documentElement, listeners = [];
  let chosen = "auto";
  try { chosen = localStorage.getItem("bench-theme") || "auto"; } catch { /* storage is closed to this page */ }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => chosen === "dark" || (chosen === "auto" && system.matches);
  function apply() {
    if (chosen === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = chosen;
    root.classList.toggle("dark", dark());
    for (const button of document.querySelectorAll("[data-action=theme]")) button.textContent = `Theme: ${chosen}`;
    for (const listener of listeners) listener();
  }
  document.addEventListener("click", event => {
    if (!event.target.closest("[data-action=theme]")) return;
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    try { localStorage.setItem("bench-theme", chosen); } catch { /* as above */ }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
  return { dark, onchange: listener => listeners.push(listener) };
})();
// Charts follow the theme; the drawing itself is Vega's.
function drawChart(element, spec) {
  const dark = theme.dark(), ink = dark ? "#e9ecf1" : "#171a1f", line = dark ? "#39414d" : "#d3d8e0";
  const palette = dark
    ? ["#7db3ff", "#ffb066", "#7fe0a0", "#ff9ecb", "#c3a6ff", "#f2e26b", "#6fe3e1", "#d8b89a", "#b8c0cc"]
    : ["#1f5fbf", "#b85c00", "#1a7f45", "#b3267a", "#6a3fc0", "#807000", "#007c80", "#7a5230", "#5a6270"];
  const config = {
    background: "transparent", font: "system-ui, sans-serif", view: { stroke: line },
    axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12 },
    legend: { labelColor: ink, titleColor: ink, orient: "bottom", columns: element.clientWidth < 480 ? 2 : 3, symbolStrokeColor: ink }, title: { color: ink },
    text: { color: ink }, rule: { color: ink }, range: { category: palette, heatmap: { scheme: dark ? "viridis" : "blues" } },
  };
  return vegaEmbed(element, spec, { renderer: "svg", actions: false, config, tooltip: { theme: dark ? "dark" : "light" } });
}
