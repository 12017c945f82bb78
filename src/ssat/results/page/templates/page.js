"use strict";
// Tables: a click on a heading sorts, a second click turns the order round; means of seeds hide while sorted by hand.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, index = heading.cellIndex, body = heading.closest("table").tBodies[0];
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[index].dataset.order ?? row.cells[index].textContent;
    const compare = (a, b) => {
      const x = value(a), y = value(b);
      if (!x || !y) return !x - !y; // an empty cell comes last in both orders
      const order = x - y || (isNaN(x - y) ? x.localeCompare(y, undefined, { numeric: true }) : 0);
      return down ? -order : order;
    };
    for (const mean of body.querySelectorAll("tr.mean")) mean.hidden = true;
    body.append(...[...body.rows].sort(compare));
  });
}

// Filters: words for the table of runs, a verdict for the cells of the paper.
for (const field of document.querySelectorAll("[data-filter=text]")) {
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of field.closest("section").querySelectorAll("tbody tr:not(.mean)")) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    }
    const sorted = field.closest("section").querySelector("[aria-sort]") !== null;
    for (const mean of field.closest("section").querySelectorAll("tr.mean")) mean.hidden = sorted || words.length > 0;
  });
}
for (const field of document.querySelectorAll("[data-filter=verdict]")) {
  field.addEventListener("change", () => {
    for (const section of document.querySelectorAll("section.item")) {
      const cells = [...section.querySelectorAll("td[data-verdict]")];
      for (const cell of cells) cell.classList.toggle("dimmed", field.value && cell.dataset.verdict !== field.value);
      section.hidden = field.value && !cells.some((cell) => cell.dataset.verdict === field.value);
    }
  });
}

for (const field of document.querySelectorAll("[data-filter=measure]")) {
  field.addEventListener("change", () => {
    for (const section of document.querySelectorAll("section:has([data-measure])")) {
      const bars = [...section.querySelectorAll("[data-measure]")];
      for (const each of bars) each.hidden = each.dataset.measure !== field.value;
      section.querySelector(".unmeasured").hidden = bars.some((each) => !each.hidden);
    }
  });
}

// Charts: the pointer or the arrow keys move a cursor; the values are read off the drawn lines.
const read = (text) => text.split(" ").map(Number);
const show = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
for (const svg of document.querySelectorAll(".chart svg[data-x]")) {
  const [x0, x1, left, right] = read(svg.dataset.x), [y0, y1, bottom, top] = read(svg.dataset.y);
  const toX = (px) => x0 + (px - left) / (right - left) * (x1 - x0);
  const toY = (py) => y0 + (bottom - py) / (bottom - top) * (y1 - y0);
  const lines = [...svg.querySelectorAll(".line")].map((line) => ({
    name: line.dataset.name, points: [...line.points].map((p) => [p.x, p.y]),
  }));
  const stops = [...new Set(lines.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
  const cursor = svg.querySelector(".cursor"), tip = svg.parentElement.querySelector(".tip");
  const nearest = (values, x) => values.reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
  let at = null;

  const hide = () => { at = null; cursor.style.visibility = tip.style.visibility = "hidden"; };
  const move = (px) => {
    at = nearest(stops, px);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    tip.replaceChildren(row(svg.dataset.xlabel.split(/[ ,]/)[0], show(toX(at))));
    for (const line of lines.slice(0, 12)) {
      const x = nearest(line.points.map((p) => p[0]), at);
      if (Math.abs(x - at) > (right - left) / 20) continue; // this line has nothing near the cursor
      tip.append(row(line.name, show(toY(line.points.find((p) => p[0] === x)[1]))));
    }
    const scale = svg.clientWidth / svg.viewBox.baseVal.width;
    const beside = at * scale + 12, room = svg.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, beside > room ? at * scale - tip.offsetWidth - 12 : beside)}px`;
    tip.style.top = `${svg.getBoundingClientRect().top - svg.parentElement.getBoundingClientRect().top + 16}px`;
    cursor.style.visibility = tip.style.visibility = "visible";
  };
  const row = (name, value) => {
    const item = document.createElement("div");
    for (const text of [name, value]) item.append(Object.assign(document.createElement("span"), { textContent: text }));
    return item;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    move((event.clientX - box.left) / box.width * svg.viewBox.baseVal.width);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const index = at === null ? (step > 0 ? -1 : stops.length) : stops.indexOf(at);
    move(stops[Math.min(stops.length - 1, Math.max(0, index + step))]);
  });
}
