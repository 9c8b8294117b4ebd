"use strict";
// Tooltips: the titles of marks, shown at once and on touch too. Without script the browser shows them by itself.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const mark of document.querySelectorAll("svg .mark, svg .tipped")) {
    const title = mark.querySelector("title");
    if (!title) continue;
    const text = title.textContent;
    title.remove();
    mark.setAttribute("aria-label", text);
    const show = (event) => {
      tip.textContent = text;
      tip.hidden = false;
      const x = Math.min(event.pageX + 14, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
      const above = event.clientY + tip.offsetHeight + 24 > window.innerHeight;
      tip.style.left = Math.max(window.scrollX + 8, x) + "px";
      tip.style.top = event.pageY + (above ? -tip.offsetHeight - 12 : 16) + "px";
    };
    mark.addEventListener("pointerenter", show);
    mark.addEventListener("pointermove", show);
    mark.addEventListener("click", show);
    mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
})();

// The trials: sorted by a click on a heading, filtered by text and verdict.
(() => {
  const table = document.getElementById("trials-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column];
    const raw = cell.dataset.v;
    if (raw === undefined) return cell.textContent.trim() === "–" ? null : cell.textContent.toLowerCase();
    return raw !== "" && !isNaN(raw) ? Number(raw) : raw;
  };
  const order = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // what has no figure comes last
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return x === null || y === null || up ? order(x, y) : -order(x, y);
      });
      body.append(...rows);
    });
  });
  const text = document.getElementById("trials-filter");
  const verdict = document.getElementById("trials-verdict");
  const count = document.getElementById("trials-count");
  const words = rows.map((row) =>
    [row.textContent, ...[...row.cells].map((cell) => cell.title)].join(" ").toLowerCase());
  const filter = () => {
    let shown = 0;
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    keyed.forEach(([row, said]) => {
      row.hidden = !wanted.every((w) => said.includes(w)) || (verdict.value !== "" && row.dataset.verdict !== verdict.value);
      if (!row.hidden) shown += 1;
    });
    count.textContent = `${shown} of ${rows.length} ${rows.length === 1 ? "trial" : "trials"}`;
  };
  const keyed = rows.map((row, i) => [row, words[i]]);
  text.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  document.getElementById("trials-controls").hidden = false;
  filter();
})();
