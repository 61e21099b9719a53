"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  /* Charts: colours are roles of the style sheet, looked up whenever a chart is drawn or the colour scheme changes. */
  const painted = (value, style) => {
    if (typeof value === "string") return value[0] === "$" ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.map((item) => painted(item, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item, style)]));
    return value;
  };
  const axis = (style) => ({ gridcolor: style("rule"), linecolor: style("rule"), zerolinecolor: style("faint"), tickcolor: style("rule"), automargin: true, fixedrange: false });
  const draw = (plot) => {
    const spec = specs[plot.dataset.chart];
    const computed = getComputedStyle(document.documentElement);
    const style = (name) => computed.getPropertyValue("--" + name).trim();
    const layout = painted(spec.layout, computed);
    for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) layout[key] = { ...axis(style), ...layout[key] };
    if (spec.wide) layout.width = Math.max(spec.wide, plot.parentElement.clientWidth);
    const narrow = plot.parentElement.clientWidth < 500;
    plot.dataset.drawn = "1";
    return Plotly.react(plot, painted(spec.data, computed), {
      paper_bgcolor: style("card"), plot_bgcolor: style("card"), height: Number(plot.dataset.height),
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: style("ink") },
      margin: { l: narrow ? 48 : 64, r: narrow ? 12 : 24, t: 16, b: 56 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      hoverlabel: { bgcolor: style("paper"), bordercolor: style("faint"), font: { color: style("ink") }, align: "left" },
      ...layout,
    }, { displayModeBar: false, responsive: !spec.wide, scrollZoom: false });
  };
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) plot.style.height = plot.dataset.height + "px";
  if (plots.length && window.Plotly) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
    }, { rootMargin: "500px" });
    plots.forEach((plot) => watcher.observe(plot));
    dark.addEventListener("change", () => plots.filter((plot) => plot.dataset.drawn).forEach(draw));
    const print = (on) => { document.documentElement.classList.toggle("printing", on); plots.forEach(draw); };
    window.addEventListener("beforeprint", () => print(true));
    window.addEventListener("afterprint", () => print(false));
  }

  /* Sortable tables: a button in each column head. */
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("th[aria-sort]").forEach((sorted) => sorted.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
        const order = (first, second) => {
          const [a, b] = [key(first), key(second)], [m, n] = [parseFloat(a), parseFloat(b)];
          if (Number.isNaN(m) !== Number.isNaN(n)) return Number.isNaN(m) ? 1 : -1;
          return (down ? -1 : 1) * (Number.isNaN(m) ? a.localeCompare(b) : m - n);
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
      });
    });
  }

  /* Clips: search, filters, sorting, a page at a time. */
  const list = document.getElementById("clips");
  if (!list) return;
  const PAGE = 24;
  const cards = [...list.children].map((card) => ({ card, text: card.textContent.toLowerCase(), name: card.querySelector("h3").textContent }));
  const find = document.getElementById("find"), sort = document.getElementById("sort"), more = document.getElementById("more");
  const limits = [...document.querySelectorAll(".ranges input")];
  let shown = PAGE;
  const number = (card, field) => {
    if (field === "gain") return card.dataset.before === "" ? NaN : Number(card.dataset.before) - Number(card.dataset.wer);
    return card.dataset[field] === "" ? NaN : Number(card.dataset[field]);
  };
  const inside = ({ card }) => limits.every((limit) => {
    if (limit.value === "") return true;
    const value = number(card, limit.dataset.field) * Number(limit.dataset.scale || 1);
    return limit.dataset.end === "low" ? value >= Number(limit.value) - 1e-9 : value <= Number(limit.value) + 1e-9;
  });
  const update = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = cards.filter((entry) => words.every((word) => entry.text.includes(word)) && inside(entry));
    const field = sort.value.slice(0, -1), sign = sort.value.endsWith("-") ? -1 : 1;
    matching.sort((first, second) => {
      if (field === "name") return first.name.localeCompare(second.name);
      const [a, b] = [number(first.card, field), number(second.card, field)];
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return sign * (a - b) || number(second.card, "wer") - number(first.card, "wer") || first.card.dataset.position - second.card.dataset.position;
    });
    for (const { card } of cards) card.hidden = true;
    matching.forEach(({ card }, position) => { card.hidden = position >= shown; });
    list.append(...matching.map(({ card }) => card));
    more.hidden = matching.length <= shown;
    more.textContent = `Show ${Math.min(PAGE, matching.length - shown)} more of ${matching.length - shown}`;
    document.getElementById("count").textContent = matching.length === cards.length ? `${cards.length} clips` : `${matching.length} of ${cards.length} clips`;
  };
  const restart = () => { shown = PAGE; update(); };
  document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
  for (const field of [find, ...limits]) field.addEventListener("input", restart);
  sort.addEventListener("change", restart);
  more.addEventListener("click", () => {
    const first = shown;
    shown += PAGE;
    update();
    const next = [...list.children].filter((card) => !card.hidden)[first];
    if (next) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
  });
  const compare = document.getElementById("compare");
  if (compare) compare.addEventListener("change", () => list.classList.toggle("comparing", compare.checked));
  /* One sound at a time. */
  list.addEventListener("play", (event) => {
    for (const audio of list.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);
  update();
})();
