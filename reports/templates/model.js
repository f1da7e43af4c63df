"use strict";
// A model's page: its charts, and a search in the long table of measurements.
(() => {
  const stored = document.getElementById("charts"), charts = stored ? JSON.parse(stored.textContent) : [];
  const draw = () => { for (const c of charts) drawChart(document.getElementById(`chart-${c.id}`), structuredClone(c.spec)); };
  theme.onchange(draw);
  draw();

  const search = document.querySelector("[type=search]");
  if (search) {
    const rows = [...document.querySelectorAll("#measurements tbody tr")].map(row => [row, row.textContent.toLowerCase()]);
    const told = document.getElementById("found");
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every(word => text.includes(word));
        shown += !row.hidden;
      }
      told.textContent = words.length ? `${shown} of ${rows.length} fit` : `${rows.length} measurements`;
    });
  }
  // What is folded on the screen is not on paper.
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
  document.documentElement.dataset.ready = "true";
})();
