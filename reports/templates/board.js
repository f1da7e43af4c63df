"use strict";
// The board: DataTables sorts, searches and pages; this file says what a cell shows, filters rows and writes exports.
(() => {
  const data = JSON.parse(document.getElementById("board-data").textContent);
  const tables = new Map(data.tables.map(table => [table.id, { ...table, filters: {} }]));
  let audited = false, restoring = true;
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const escape = text => String(text).replace(/[&<>"']/g, c => escapes[c]);
  const number = text => (text === "" ? null : parseFloat(text));

  // What a number's cell shows in the chosen mode: {text, value, mark, tone, tip, note}.
  function shown(cell, column, row) {
    if (!cell) return { text: "–", value: null };
    if (cell.a === undefined) {
      if (row.kind === "published") return { text: cell.v, value: cell.n, title: cell.d ?? "as printed; not checked against its source" };
      const parts = [cell.i ? `95 % interval ${cell.i}` : null, cell.d, column.tip];
      return { text: cell.v, value: cell.n, interval: cell.i, tip: parts.filter(Boolean).join("\n"), mark: cell.f ? "‡" : "", flagged: cell.f };
    }
    const audit = data.audits[cell.a], printed = cell.v || "–";
    const about = `printed ${printed}; ${audit.standing}${audit.audited ? `, audited ${audit.audited}` : ""}`;
    const tip = `Printed: ${printed}\nAudited: ${audit.audited || "no trustworthy number"}\nStanding: ${audit.standing} (${audit.basis}, severity ${audit.severity})\n${audit.note}`;
    const note = `${column.group ? `${column.group} ` : ""}${column.title}: ${about}: ${audit.note}`;
    if (audit.standing === "corrected") {
      const text = audited ? audit.audited || "–" : printed;
      return { text, value: number(text === "–" ? "" : text), mark: "†", tone: "corrected", tip, note };
    }
    if (audit.standing === "not confirmed") return { text: printed, value: cell.n, mark: "?", tone: "doubt", note,
      tip: `Printed: ${printed}\nNot confirmed: nobody has read the source (${audit.basis}).\n${audit.note}` };
    return { text: printed, value: cell.n, mark: audit.standing === "variant" ? "≈" : "†", tone: "doubt", tip, note };
  }

  // Bold: best of the measured (with its ties, decided when the page was made) and best of the published, apart.
  function markBest(table) {
    table.best = table.columns.map((column, index) => {
      if (column.kind !== "number" || !column.dir) return null;
      let best = null;
      for (const row of table.rows) {
        const cell = row.cells[index];
        if (row.kind !== "published" || row.reference || !cell || cell.z) continue;
        const value = shown(cell, column, row).value;
        if (value !== null && (best === null || (column.dir === "higher" ? value > best : value < best))) best = value;
      }
      return best;
    });
  }

  function display(table, row, index) {
    const column = table.columns[index], cell = row.cells[index];
    if (column.kind === "text") {
      if (index) return escape(cell ?? "");
      const name = row.href ? `<a href="${escape(row.href)}">${escape(cell)}</a>` : escape(cell);
      const dot = row.family ? `<span class="dot" style="--family:${familyColour(row.family)}" aria-hidden="true"></span>` : "";
      const mixed = table.mixed && row.kind === "measured" ? ' <span class="badge">measured</span>' : "";
      return `<span class="name">${dot}<span>${name}</span>${mixed}</span>`;
    }
    const s = shown(cell, column, row);
    if (!cell) return '<span class="dim" aria-label="unreported">–</span>';
    const bold = row.kind === "measured" ? cell.b : !row.reference && !cell.z && s.value !== null && s.value === table.best[index];
    const classes = ["cell", bold ? "best" : "", s.tone ?? ""].filter(Boolean).join(" ");
    const mark = s.mark ? `<sup aria-hidden="true">${s.mark}</sup>` : "";
    const hints = s.tip ? ` tabindex="0" data-tip="${escape(s.tip)}"` : s.title ? ` title="${escape(s.title)}"` : "";
    const text = bold ? `<strong>${escape(s.text)}</strong>` : escape(s.text);
    return `<span class="${classes}"${hints}>${text}${mark}</span>`;
  }

  const families = [...new Set(data.tables.flatMap(table => table.rows.map(row => row.family).filter(Boolean)))].sort();
  function familyColour(family) {
    const hue = Math.round((360 * families.indexOf(family)) / families.length);
    return `light-dark(hsl(${hue} 70% 40%), hsl(${hue} 75% 68%))`;
  }

  // Unreported cells come last whichever way a column is sorted.
  const order = DataTable.ext.type.order;
  const last = compare => (a, b) => (a === null || b === null ? (a === null) - (b === null) : compare(a, b));
  order["reported-asc"] = last((a, b) => a - b);
  order["reported-desc"] = last((a, b) => b - a);

  const FILTERS = [["kind", "Numbers"], ["family", "Family"], ["backbone", "Backbone"], ["data", "Data"], ["year", "Year"]];
  function build(table) {
    const element = document.getElementById(table.id);
    table.mixed = new Set(table.rows.map(row => row.kind)).size > 1;
    markBest(table);
    const columns = table.columns.map((column, index) => ({
      name: column.key, visible: !column.hidden, type: column.kind === "number" ? "reported" : "string",
      className: column.kind === "number" ? "number" : ["loss", "data", "backbone", "architecture"].includes(column.key) ? "wide" : "",
      orderSequence: column.kind === "number" && column.dir !== "lower" ? ["desc", "asc", ""] : ["asc", "desc", ""],
      data: null, cellType: index ? "td" : "th",
      createdCell: index ? undefined : cell => cell.setAttribute("scope", "row"),
      render: (_, type, row) => {
        if (type === "display") return display(table, row, index);
        if (column.kind === "text") return row.cells[index] ?? "";
        const s = shown(row.cells[index], column, row);
        return type === "filter" ? s.text : s.value;
      },
    }));
    table.view = new DataTable(element, {
      data: table.rows, columns, order: [], titleRow: element.tHead.rows.length - 1, autoWidth: false, deferRender: true, paging: table.rows.length > 60, pageLength: 50,
      createdRow: (tr, row) => tr.classList.add(row.kind),
      language: { search: "Search", info: "_TOTAL_ of _MAX_ rows", infoEmpty: "no row", infoFiltered: "", zeroRecords: "No row fits these filters." },
      layout: { topStart: { buttons: [{ extend: "colvis", text: "Columns", background: false, fade: 0 }] }, topEnd: "search", bottomStart: "info",
        bottomEnd: table.rows.length > 60 ? "paging" : null },
    });
    filters(table);
    table.view.on("draw column-visibility", remember);
  }

  function filters(table) {
    const bar = document.querySelector(`[data-filters="${table.id}"]`);
    for (const [key, label] of FILTERS) {
      const values = [...new Set(table.rows.map(row => row[key]).filter(Boolean))].sort();
      if (values.length < 2) continue;
      const select = document.createElement("select");
      select.dataset.filter = key;
      select.append(new Option("all", ""), ...values.map(value => new Option(value, value)));
      select.addEventListener("change", () => filter(table, key, select.value));
      const wrap = document.createElement("label");
      wrap.append(label, select);
      bar.append(wrap);
    }
    for (const [format, label] of [["csv", "CSV"], ["md", "Markdown"], ["tex", "LaTeX"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.dataset.export = format;
      button.setAttribute("aria-label", `Export the rows shown of ${table.title} as ${label}`);
      button.addEventListener("click", () => download(table, format));
      bar.append(button);
    }
  }

  function filter(table, key, value) {
    table.filters[key] = value;
    const select = document.querySelector(`[data-filters="${CSS.escape(table.id)}"] [data-filter="${key}"]`);
    if (select && select.value !== value) select.value = value;
    table.view.search.fixed(key, value ? (_, row) => row[key] === value : null).draw();
  }

  // Exports: what is shown, in the order shown, with what the audit says of it.
  function exported(table) {
    const view = table.view, visible = view.columns(":visible").indexes().toArray();
    const rows = view.rows({ search: "applied", order: "applied" }).data().toArray();
    const heads = visible.map(i => {
      const column = table.columns[i];
      return [column.group, column.title].filter(Boolean).join(" ");
    });
    const body = rows.map(row => {
      const notes = [];
      const cells = visible.map(i => {
        const column = table.columns[i];
        if (column.kind === "text") return String(row.cells[i] ?? "");
        const s = shown(row.cells[i], column, row);
        if (s.note) notes.push(s.note);
        if (s.flagged) notes.push(`${column.title}: ${row.cells[i].d}`);
        const mark = s.mark && s.note ? s.mark : "";
        return s.interval ? `${s.text} [${s.interval}]` : `${s.text}${mark}`;
      });
      return { cells, kind: row.kind, notes };
    });
    return { heads, body };
  }

  const WRITERS = {
    csv({ heads, body }) {
      const quote = text => {
        const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
        return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      const lines = [[...heads, "number", "notes"], ...body.map(row => [...row.cells, row.kind, row.notes.join("; ")])];
      return lines.map(line => line.map(quote).join(",")).join("\n") + "\n";
    },
    md({ heads, body }) {
      const flat = text => text.replace(/\s+/g, " ").replace(/([\\`*_{}[\]|#])/g, "\\$1").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
      const line = cells => `| ${cells.map(flat).join(" | ")} |`;
      const notes = body.flatMap(row => row.notes.map(note => `- ${flat(`${row.cells[0]}, ${note}`)}`));
      return [line([...heads, "number"]), `|${" --- |".repeat(heads.length + 1)}`, ...body.map(row => line([...row.cells, row.kind])),
        ...(notes.length ? ["", ...notes] : []), ""].join("\n");
    },
    tex({ heads, body }) {
      const special = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "†": "\\dag{}",
        "≈": "$\\approx$", τ: "$\\tau$", α: "$\\alpha$", β: "$\\beta$", λ: "$\\lambda$", "×": "$\\times$", "²": "$^2$", "³": "$^3$" };
      const plain = text => text.replace(/\s+/g, " ").replace(/[\\~^–†≈ταβλ×²³&%$#_{}]/g, c => special[c] ?? `\\${c}`);
      const line = cells => `${cells.map(plain).join(" & ")} \\\\`;
      const notes = body.flatMap(row => row.notes.map(note => `% ${`${row.cells[0]}, ${note}`.replace(/\s+/g, " ")}`));
      return [`\\begin{tabular}{${"l".repeat(heads.length)}}`, "\\hline", line(heads), "\\hline", ...body.map(row => line(row.cells)), "\\hline",
        "\\end{tabular}", ...notes, ""].join("\n");
    },
  };

  function download(table, format) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([WRITERS[format](exported(table))], { type: "text/plain;charset=utf-8" }));
    link.download = `${table.id}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // The address holds the view: filters, search, order, columns, mode. Sharing it shares the view.
  function remember() {
    if (restoring) return;
    const hash = new URLSearchParams();
    if (audited) hash.set("audited", "1");
    for (const [id, table] of tables) {
      for (const [key, value] of Object.entries(table.filters)) if (value) hash.set(`${id}.${key}`, value);
      if (table.view.search()) hash.set(`${id}.q`, table.view.search());
      const sorted = table.view.order()[0];
      if (sorted && sorted[1]) hash.set(`${id}.order`, `${sorted[0]}:${sorted[1]}`);
      const shownNow = table.columns.map((_, i) => table.view.column(i).visible());
      if (shownNow.some((on, i) => on === Boolean(table.columns[i].hidden))) hash.set(`${id}.columns`, shownNow.map(Number).join(""));
    }
    history.replaceState(null, "", hash.size ? `#${hash}` : location.pathname + location.search);
  }

  function restore() {
    restoring = true;
    const hash = new URLSearchParams(location.hash.slice(1));
    setAudited(hash.get("audited") === "1");
    for (const [id, table] of tables) {
      const columns = hash.get(`${id}.columns`) ?? "";
      table.columns.forEach((column, i) =>
        table.view.column(i).visible(columns.length === table.columns.length ? columns[i] === "1" : !column.hidden, false));
      for (const [key] of FILTERS) if (hash.get(`${id}.${key}`) || table.filters[key]) filter(table, key, hash.get(`${id}.${key}`) ?? "");
      table.view.search(hash.get(`${id}.q`) ?? "");
      const [column, direction] = (hash.get(`${id}.order`) ?? "").split(":");
      table.view.order(["asc", "desc"].includes(direction) && table.columns[column] ? [[Number(column), direction]] : []);
      table.view.columns.adjust().draw(false);
    }
    restoring = false;
  }

  function setAudited(on) {
    audited = on;
    for (const input of document.querySelectorAll("[name=values]")) input.checked = input.value === (on ? "audited" : "printed");
    for (const table of tables.values()) {
      if (!table.rows.some(row => row.kind === "published")) continue;
      markBest(table);
      table.view.rows().invalidate().draw(false);
    }
    draw();
    remember();
  }

  function draw() {
    for (const chart of data.charts) {
      const spec = structuredClone(chart.spec);
      for (const layer of spec.layer) {
        if (layer.data?.name !== "points") continue;
        const chosen = audited ? layer.data.values.map(p => ({ ...p, y: p.ya === undefined ? p.y : p.ya, x: p.xa === undefined ? p.x : p.xa })) : layer.data.values;
        layer.data.values = chosen.filter(p => p.y !== null && p.x !== null && p.y !== undefined);
      }
      drawChart(document.getElementById(`chart-${chart.id}`), spec);
    }
  }

  // Tooltips answer to the pointer, to focus and to Escape.
  const tip = document.getElementById("tip");
  let pointed = null;
  function show(target) {
    pointed = target;
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    target.setAttribute("aria-describedby", "tip");
    const box = target.getBoundingClientRect(), size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - size.width - 6))}px`;
    tip.style.top = `${box.bottom + size.height + 8 > innerHeight ? Math.max(6, box.top - size.height - 6) : box.bottom + 6}px`;
  }
  const hide = () => { tip.hidden = true; pointed = null; };
  for (const [enter, leave] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    document.addEventListener(enter, event => { const target = event.target.closest("[data-tip]"); if (target) show(target); });
    document.addEventListener(leave, event => { if (event.target.closest("[data-tip]")) hide(); });
  }
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", () => { if (pointed) show(pointed); }, { passive: true, capture: true });

  for (const table of tables.values()) build(table);
  for (const input of document.querySelectorAll("[name=values]")) input.addEventListener("change", () => setAudited(input.value === "audited"));
  theme.onchange(draw);
  // A link to a section is no view: it moves the page, and leaves filters as they are.
  addEventListener("hashchange", () => { if (!document.getElementById(location.hash.slice(1))) restore(); });
  restore();
  window.board = { text: (id, format) => WRITERS[format](exported(tables.get(id))) };
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
  document.documentElement.dataset.ready = "true";
})();
