"use strict";
// Draws the curves, the trade-off and the table of prompts from the page's own data.

const data = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 235;
const BOX = { left: 56, right: 10, top: 10, bottom: 36 };
const AXES = {
  queries: "reward queries", epoch: data.checkpoint, kl: "KL to the base model, nats",
  trained: "change of the trained reward on its own prompts",
};
const shown = new Set(data.methods.filter((m) => m.shown).map((m) => m.name));
const methods = new Map(data.methods.map((m) => [m.name, m]));
const groupLabel = new Map(data.groups.map((g) => [g.name, g.label]));

// ---------------------------------------------------------------- elements
function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function options(select, values, labels = (value) => value) {
  const before = select.value;
  const made = values.map((value) => html("option", { value: value }, labels(value)));
  select.replaceChildren(...made);
  if (values.includes(before)) select.value = before;
}

// ---------------------------------------------------------------- numbers
function number(value, digits = 3) {
  if (value === null) return "–";
  const size = Math.abs(value);
  const text = value !== 0 && (size < 1e-4 || size >= 1e7)
    ? value.toExponential(digits - 1)
    : value.toLocaleString("en", { maximumSignificantDigits: digits });
  return text.replace("-", "−");
}

function signed(value) {
  return (value > 0 ? "+" : "") + number(value);
}

// Round values between two ends, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    made.push(i * step || 0);  // never minus zero
  }
  return made;
}

// The values' ends with some air; never of no length.
function extent(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - air, high + air];
}

// ---------------------------------------------------------------- marks
const POLYGONS = {
  "o": null,
  "s": [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  "D": [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  "^": [[0, -1.2], [1.2, 1], [-1.2, 1]],
  "v": [[0, 1.2], [1.2, -1], [-1.2, -1]],
  "<": [[-1.2, 0], [1, 1.2], [1, -1.2]],
  ">": [[1.2, 0], [-1, 1.2], [-1, -1.2]],
  "P": [[-.5, -1.2], [.5, -1.2], [.5, -.5], [1.2, -.5], [1.2, .5], [.5, .5], [.5, 1.2],
    [-.5, 1.2], [-.5, .5], [-1.2, .5], [-1.2, -.5], [-.5, -.5]],
  "X": [[-1.2, -.6], [-.6, -1.2], [0, -.6], [.6, -1.2], [1.2, -.6], [.6, 0], [1.2, .6],
    [.6, 1.2], [0, .6], [-.6, 1.2], [-1.2, .6], [-.6, 0]],
  "h": [[0, -1.2], [1.04, -.6], [1.04, .6], [0, 1.2], [-1.04, .6], [-1.04, -.6]],
  "*": [[0, -1.5], [.35, -.49], [1.43, -.46], [.57, .19], [.88, 1.21], [0, .6],
    [-.88, 1.21], [-.57, .19], [-1.43, -.46], [-.35, -.49]],
};

function mark(look, x, y, size = 3.4) {
  const corners = POLYGONS[look.marker];
  if (!corners) return svg("circle", { cx: x, cy: y, r: size, fill: look.color });
  const points = corners.map(([dx, dy]) => `${x + dx * size},${y + dy * size}`);
  return svg("polygon", { points: points.join(" "), fill: look.color });
}

function line(points, attributes) {
  return svg("polyline", { points: points.map((p) => p.join(",")).join(" "), ...attributes });
}

// ---------------------------------------------------------------- a chart
// `series`: {look, points: [{x, y, low, high, words}]}; null ends where no interval is.
// `extra` gets the two scales and gives further elements, drawn over the curves.
function chart(series, { title, x: xLabel, y: yLabel, joined = true, extra = () => [] }) {
  const points = series.flatMap((s) => s.points);
  const frame = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0,
    "aria-label": description(title, series, xLabel),
  });
  const ends = points.flatMap((p) => [p.y, p.low, p.high]).filter((v) => v !== null);
  const [x0, x1] = extent(points.map((p) => p.x));
  const [y0, y1] = extent([0, ...ends]);
  const toX = (v) => BOX.left + ((v - x0) / (x1 - x0)) * (WIDTH - BOX.left - BOX.right);
  const toY = (v) => HEIGHT - BOX.bottom
    - ((v - y0) / (y1 - y0)) * (HEIGHT - BOX.top - BOX.bottom);
  for (const value of ticks(y0, y1, 5)) {
    const y = toY(value), kind = value === 0 ? "zero" : "grid";
    frame.append(
      svg("line", { class: kind, x1: BOX.left, x2: WIDTH - BOX.right, y1: y, y2: y }),
      svg("text", { x: BOX.left - 5, y: y + 4, "text-anchor": "end" }, number(value)),
    );
  }
  for (const value of ticks(x0, x1, 5)) {
    const place = { x: toX(value), y: HEIGHT - BOX.bottom + 15, "text-anchor": "middle" };
    frame.append(svg("text", place, number(value, 4)));
  }
  frame.append(
    svg("text", { x: (BOX.left + WIDTH - BOX.right) / 2, y: HEIGHT - 5,
      "text-anchor": "middle" }, xLabel),
    svg("text", { transform: `translate(11 ${(HEIGHT - BOX.bottom) / 2}) rotate(-90)`,
      "text-anchor": "middle" }, yLabel),
  );
  for (const { look, points: own } of series) {
    const known = own.filter((p) => p.low !== null);
    if (joined) {
      const upper = known.map((p) => [toX(p.x), toY(p.high)]);
      const lower = known.map((p) => [toX(p.x), toY(p.low)]).reverse();
      const corners = [...upper, ...lower].map((p) => p.join(",")).join(" ");
      frame.append(svg("polygon", { class: "band", points: corners, fill: look.color }));
    } else {
      frame.append(...known.map((p) => svg("line", { class: "bar", stroke: look.color,
        x1: toX(p.x), x2: toX(p.x), y1: toY(p.low), y2: toY(p.high) })));
    }
  }
  for (const { look, points: own } of series) {
    const places = own.map((p) => [toX(p.x), toY(p.y)]);
    frame.append(
      line(places, { class: "curve", stroke: look.color, "stroke-dasharray": look.dash }),
      ...places.map(([x, y]) => mark(look, x, y)),
    );
  }
  frame.append(...extra(toX, toY));
  readable(frame, series, toX, toY);
  return frame;
}

function description(title, series, xLabel) {
  const last = series.map((s) => `${s.look.label}: ${s.points.at(-1).words}`);
  return `${title}, over ${xLabel}. Last checkpoints. ${last.join(". ")}`;
}

// ---------------------------------------------------------------- reading numbers off
function readable(frame, series, toX, toY) {
  const cursor = svg("circle", { class: "cursor", r: 6, visibility: "hidden" });
  frame.append(cursor);
  let at = [0, 0];
  const show = (s, i) => {
    at = [s, i];
    const { look, points } = series[s], point = points[i];
    const x = toX(point.x), y = toY(point.y);
    cursor.setAttribute("cx", x);
    cursor.setAttribute("cy", y);
    cursor.setAttribute("visibility", "visible");
    const box = frame.getBoundingClientRect(), scale = box.width / WIDTH;
    tell(`${look.label}\n${point.words}`, box.left + x * scale, box.top + y * scale);
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    byId("tip").hidden = true;
  };
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect(), scale = WIDTH / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = [Infinity, 0, 0];
    series.forEach(({ points }, s) => points.forEach((p, i) => {
      const distance = Math.hypot(toX(p.x) - x, toY(p.y) - y);
      if (distance < best[0]) best = [distance, s, i];
    }));
    if (best[0] < 40) show(best[1], best[2]);
    else hide();
  });
  frame.addEventListener("pointerleave", hide);
  frame.addEventListener("blur", hide);
  frame.addEventListener("focus", () => {
    if (frame.matches(":focus-visible")) show(...at);
  });
  frame.addEventListener("keydown", (event) => {
    const [s, i] = at;
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0],
      ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const next = (s + step[0] + series.length) % series.length;
    const most = series[next].points.length - 1;
    show(next, Math.max(0, Math.min(most, i + step[1])));
  });
}

function tell(words, x, y) {
  const tip = byId("tip");
  tip.textContent = words;
  tip.hidden = false;
  const left = Math.min(x + 14, window.innerWidth - tip.offsetWidth - 8);
  const above = y - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 4 ? above : y + 16}px`;
}

// ---------------------------------------------------------------- what is picked
function picked() {
  return { reward: byId("reward").value, group: byId("group").value,
    along: byId("along").value, unit: byId("unit").value };
}

function find(reward, group, scored, method) {
  return data.curves.find((c) => c.reward === reward && c.group === group
    && c.scored === scored && c.method === method);
}

// What curves of a trained reward are of, in the order of their roles.
function scoredRewards(reward) {
  const roles = new Map();
  for (const c of data.curves) if (c.reward === reward) roles.set(c.scored, c.role);
  const order = Object.keys(ROLES);
  return [...roles].sort((a, b) => order.indexOf(a[1]) - order.indexOf(b[1]));
}

function divisor(curve, unit) {
  return unit === "own" ? 1 : curve.base_sd > 0 ? curve.base_sd : null;
}

function divided(value, by) {
  return value === null ? null : value / by;
}

function pointsOf(curve, trained, along, unit) {
  const by = divisor(curve, unit), xBy = trained && divisor(trained, unit);
  if (by === null || (along === "trained" && !xBy)) return [];
  const change = new Map(trained ? trained.epoch.map((e, i) => [e, trained.change[i]]) : []);
  return curve.epoch.map((epoch, i) => {
    const own = change.has(epoch) ? divided(change.get(epoch), xBy) : null;
    const x = along === "trained" ? own : curve[along][i];
    const y = divided(curve.change[i], by);
    const low = divided(curve.low[i], by), high = divided(curve.high[i], by);
    return { x, y, low, high, epoch, words: wordsOf(curve, i, y, low, high) };
  }).filter((p) => p.x !== null && p.y !== null);
}

function wordsOf(curve, i, y, low, high) {
  const interval = low === null ? "no interval" : `[${signed(low)}, ${signed(high)}]`;
  const kl = curve.kl[i] === null ? "" : `, KL ${number(curve.kl[i])}`;
  const seeds = curve.seeds[i] === 1 ? "one seed" : `${curve.seeds[i]} seeds`;
  return `${curve.scored} ${signed(y)} ${interval}\n${data.checkpoint} ${curve.epoch[i]}, `
    + `${number(curve.queries[i], 7)} reward queries${kl}\n`
    + `${seeds}, ${curve.prompts[i]} prompts, ${curve.images[i]} images`;
}

function seriesOf(scored, { reward, group, along, unit }) {
  const made = [];
  for (const look of data.methods) {
    if (!shown.has(look.name)) continue;
    const curve = find(reward, group, scored, look.name);
    const trained = find(reward, "seen", reward, look.name);
    const points = curve ? pointsOf(curve, trained, along, unit) : [];
    if (points.length) made.push({ look, points });
  }
  return made;
}

// ---------------------------------------------------------------- the sections
const ROLES = {
  trained: "trained", part: "a part of it", gold: "its gold", cross: "held out",
  size: "a size",
};

function unitLabel(unit) {
  return unit === "sd" ? "change, base SD" : "change, own units";
}

function figure(title, note, content) {
  return html("figure", {},
    html("figcaption", {}, title, " ", html("span", {}, note)), content);
}

function nothing() {
  return html("p", { class: "note" }, "Nothing to draw: not scored, without variation "
    + "on the base model (pick own units), or without this axis (pick another).");
}

function drawCurves() {
  const now = picked();
  const made = scoredRewards(now.reward).map(([scored, role]) => {
    const series = seriesOf(scored, now);
    const title = `${scored} on ${groupLabel.get(now.group)}`;
    const content = series.length
      ? chart(series, { title, x: AXES[now.along], y: unitLabel(now.unit) }) : nothing();
    return figure(scored, ROLES[role], content);
  });
  byId("panels").replaceChildren(...made);
}

// Points that no other one is at least as good as in both, and better in one.
function front(points) {
  const ordered = [...points].sort((a, b) => b.x - a.x || b.y - a.y);
  let best = -Infinity;
  return ordered.filter((p) => p.y > best && (best = p.y, true)).reverse();
}

function drawFront() {
  const now = { ...picked(), along: "trained" }, scored = byId("against").value;
  const series = seriesOf(scored, now);
  const best = front(series.flatMap((s) => s.points));
  const extra = (toX, toY) => [
    line(best.map((p) => [toX(p.x), toY(p.y)]), { class: "front" }),
    ...best.map((p) => svg("circle", { class: "ring", cx: toX(p.x), cy: toY(p.y), r: 6.5 })),
  ];
  const title = `${scored} on ${groupLabel.get(now.group)} against ${now.reward}`;
  const content = series.length ? chart(series, { title, x: AXES.trained,
    y: unitLabel(now.unit), joined: false, extra }) : nothing();
  byId("front").replaceChildren(figure(scored, `on ${groupLabel.get(now.group)}`, content));
}

let sorting = { column: "prompt", falling: false };

function promptRows() {
  const { reward, group } = picked(), method = byId("prompt-method").value;
  return data.prompts.filter((t) => t.reward === reward && t.group === group
    && (method === "" || t.method === method)).flatMap((t) => t.prompts.map((prompt, i) => {
    const changes = Object.entries(t.changes).map(([name, all]) => [name, all[i]]);
    return { prompt, method: t.method, changes: Object.fromEntries(changes) };
  }));
}

function drawPrompts() {
  const scored = scoredRewards(picked().reward);
  const names = ["prompt", "method", ...scored.map(([name]) => name)];
  if (!names.includes(sorting.column)) sorting = { column: "prompt", falling: false };
  const value = (row) => row.changes[sorting.column] ?? row[sorting.column] ?? -Infinity;
  const rows = promptRows().sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const order = typeof x === "string" ? x.localeCompare(y, "en") : x - y;
    return sorting.falling ? -order : order;
  });
  const heading = (name, note) => {
    const state = sorting.column !== name ? "none"
      : sorting.falling ? "descending" : "ascending";
    const arrow = { none: "", ascending: " ▲", descending: " ▼" }[state];
    const sort = () => {
      sorting = { column: name, falling: sorting.column === name && !sorting.falling };
      drawPrompts();
      byId(`sort-${name}`).focus();
    };
    return html("th", { scope: "col", "aria-sort": state, class: note ? "number" : "" },
      html("button", { type: "button", id: `sort-${name}`, onclick: sort },
        name + (note ? `, ${note}` : "") + arrow));
  };
  byId("prompt-table").replaceChildren(
    html("thead", {}, html("tr", {}, heading("prompt", ""), heading("method", ""),
      ...scored.map(([name, role]) => heading(name, ROLES[role])))),
    html("tbody", {}, ...rows.map((row) => html("tr", {},
      html("th", { scope: "row" }, row.prompt),
      html("td", {}, methods.get(row.method).label),
      ...scored.map(([name]) => html("td", { class: "number" },
        row.changes[name] == null ? "–" : signed(row.changes[name]))),
    ))),
  );
}

function drawLegend() {
  const { reward } = picked();
  const there = new Set(data.curves.filter((c) => c.reward === reward).map((c) => c.method));
  const made = data.methods.filter((m) => there.has(m.name)).map((look) => {
    const swatch = svg("svg", { viewBox: "0 0 38 14", "aria-hidden": "true" },
      line([[1, 7], [37, 7]], { class: "curve", stroke: look.color,
        "stroke-dasharray": look.dash }),
      mark(look, 19, 7, 4));
    const toggle = () => {
      if (!shown.delete(look.name)) shown.add(look.name);
      button.setAttribute("aria-pressed", shown.has(look.name));
      drawCurves();
      drawFront();
    };
    const button = html("button", { type: "button", "aria-pressed": shown.has(look.name),
      onclick: toggle }, swatch, look.label);
    return button;
  });
  byId("legend").replaceChildren(...made);
}

function drawAll() {
  const { reward } = picked();
  const groups = data.groups.filter((g) => data.curves.some((c) => c.reward === reward
    && c.group === g.name)).map((g) => g.name);
  options(byId("group"), groups, (name) => groupLabel.get(name));
  const others = scoredRewards(reward).filter(([, role]) => role !== "trained");
  options(byId("against"), others.map(([name]) => name));
  const there = data.methods.filter((m) => data.prompts.some((p) => p.reward === reward
    && p.method === m.name)).map((m) => m.name);
  options(byId("prompt-method"), ["", ...there],
    (name) => name === "" ? "all" : methods.get(name).label);
  drawLegend();
  drawCurves();
  drawFront();
  drawPrompts();
}

options(byId("reward"), data.rewards);
for (const id of ["reward", "group"]) byId(id).addEventListener("change", drawAll);
for (const id of ["along", "unit"]) {
  byId(id).addEventListener("change", () => { drawCurves(); drawFront(); });
}
byId("against").addEventListener("change", drawFront);
byId("prompt-method").addEventListener("change", drawPrompts);
window.addEventListener("scroll", () => {
  byId("tip").hidden = true;
  // A chart that is being read by keyboard keeps its words, where it is now.
  const chart = document.activeElement.closest(".panels svg");
  if (chart) chart.dispatchEvent(new FocusEvent("focus"));
}, { passive: true });
window.addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("#summary details, #samples details")) {
    fold.open = true;
  }
});
drawAll();
