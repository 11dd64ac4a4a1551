"use strict";

// A column's head sorts its table: numbers by size, texts as people count (2 before 10).
document.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
  const head = button.closest("th"), row = head.parentElement, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending", at = [...row.children].indexOf(head);
  const value = line => line.children[at].dataset.v;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // what is missing comes last
    const sign = up ? 1 : -1;
    return sign * (head.classList.contains("n") ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  [...row.children].forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
}));

// A link to a folded section opens it.
function unfold() {
  const section = document.getElementById(location.hash.slice(1));
  if (section instanceof HTMLDetailsElement) section.open = true;
}
addEventListener("hashchange", unfold);
unfold();

// Heat maps of pairs: the numbers are those of the figure's CSV file.
function entries(figure, examples) {
  const place = new Map(examples.map((example, i) => [String(example.row), i]));
  const n = examples.length, address = figure.querySelector("a[download]").href;
  const [head, ...lines] = atob(address.split(",")[1]).trim().split(/\r?\n/);
  const names = head.split(",").slice(2);
  const found = Object.fromEntries(names.map(name => [name, new Float64Array(n * n)]));
  for (const line of lines) {
    const [first, second, ...numbers] = line.split(",");
    const i = place.get(first), j = place.get(second);
    names.forEach((name, k) => { found[name][i * n + j] = found[name][j * n + i] = numbers[k]; });
  }
  return found;
}

function painted(values, n, limit, colours) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = n;
  const context = canvas.getContext("2d"), image = context.createImageData(n, n);
  values.forEach((value, i) => {
    const part = Math.min(1, Math.max(-1, value / limit));
    const colour = colours[Math.round((part + 1) / 2 * (colours.length - 1))] ?? "#808080";
    const rgb = parseInt(colour.slice(1), 16);
    image.data.set([rgb >> 16, rgb >> 8 & 255, rgb & 255, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

function explore(figure, { colours, classes, examples }) {
  const n = examples.length, cell = Math.ceil(720 / n);
  const scale = Number(figure.dataset.scale), limit = Number(figure.dataset.limit);
  const found = entries(figure, examples);
  found.scaled = found.K_F.map((value, i) => value - found.difference[i]);

  const picture = figure.querySelector(".wide");
  const say = (name, text) => { figure.querySelector(`[data-say=${name}]`).textContent = text; };
  const short = value => String(Number(value.toPrecision(4)));
  figure.prepend(document.getElementById("pairs").content.cloneNode(true));
  say("about", picture.querySelector("img").alt);
  say("scale", short(scale));
  say("low", short(-limit));
  say("high", short(limit));
  figure.querySelector(".bar i").style.background = `linear-gradient(90deg, ${colours.join()})`;
  figure.querySelector(".whole").append(picture);

  const canvases = [...figure.querySelectorAll("canvas")];
  const images = canvases.map(canvas => painted(found[canvas.dataset.of], n, limit, colours));
  const borders = examples.flatMap((example, i) =>
    classes && i > 0 && example.label !== examples[i - 1].label ? [i * cell] : []);
  let chosen = null;

  function draw() {
    canvases.forEach((canvas, k) => {
      canvas.width = canvas.height = n * cell;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(images[k], 0, 0, n * cell, n * cell);
      borders.forEach(at => {
        context.fillRect(0, at - 1, n * cell, 2);
        context.fillRect(at - 1, 0, 2, n * cell);
      });
      if (!chosen) return;
      [["white", 8], ["black", 4]].forEach(([colour, width]) => {  // seen on light and dark
        Object.assign(context, { strokeStyle: colour, lineWidth: width });
        context.strokeRect(chosen[1] * cell - 2, chosen[0] * cell - 2, cell + 4, cell + 4);
      });
    });
  }

  function choose(i, j) {
    chosen = [i, j].map(at => Math.min(n - 1, Math.max(0, at)));
    chosen.forEach((at, k) => {
      const { row, label, texts } = examples[at];
      say(`label${k}`, `Example ${row}, ${label}:`);
      say(`text${k}`, texts.join(" | "));
    });
    ["K_F", "K_P", "scaled", "difference"].forEach(name => {
      say(name, short(found[name][chosen[0] * n + chosen[1]]));
    });
    figure.querySelector(".readout").classList.add("chosen");
    draw();
  }

  canvases.forEach(canvas => {
    const point = event => {
      const box = canvas.getBoundingClientRect();
      const at = (place, start, length) => Math.floor((place - start) / length * n);
      choose(at(event.clientY, box.top, box.height), at(event.clientX, box.left, box.width));
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("focus", () => { if (!chosen) choose(0, 0); });
    canvas.addEventListener("keydown", event => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const [i, j] = chosen ?? [0, 0];
      choose(i + step[0], j + step[1]);
    });
  });
  draw();
}

const data = document.getElementById("explorer");
if (data) {
  const shared = JSON.parse(data.textContent);
  document.querySelectorAll("figure[data-limit]").forEach(figure => explore(figure, shared));
}
