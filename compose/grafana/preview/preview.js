// Draws the panels of one Grafana dashboard: each kind as far as our panels use it. PREVIEW is what preview.py asked for.
"use strict";

// Grafana's names for colours, as its dark theme has them.
const COLOURS = {
  green: "#73bf69", "dark-green": "#37872d", yellow: "#fade2a", "semi-dark-yellow": "#f2cc0c", orange: "#ff9830",
  "semi-dark-orange": "#ff780a", red: "#f2495c", blue: "#5794f2", "light-blue": "#8ab8ff", purple: "#b877d9",
  "light-purple": "#ca95e5", white: "#ffffff",
};
// Of a line without a colour of its own: by its name, as Grafana's `palette-classic-by-name` chooses.
const PALETTE = `green semi-dark-yellow light-blue semi-dark-orange red blue purple #705da0 dark-green yellow #447ebc #c15c17
  #890f02 #0a437c #6d1f62 #584477 #b7dbab #f4d598 #70dbed #f9ba8f #f29191 #82b5d8 #e5a8e2 #aea2e0 #629e51 #e5ac0e #64b0c8
  #e0752d #bf1b00 #0a50a1 #962d82 #614d93 #9ac48a #f2c96d #65c5db #f9934e #ea6460 #5195ce #d683ce #806eb7 #3f6833 #967302
  #2f575e #99440a #58140c #052b51 #511749 #3f2b5b #e0f9d7 #fceaca #cffaff #f9e2d2 #fce2de #badff4 #f9d9f9 #dedaf7`.split(/\s+/);
const AXIS_TEXT = "#9fa7b3", GRID = "rgba(204, 204, 220, 0.07)", CELL_PX = 30, GAP_PX = 8, TOP_PX = 88;

const colour = (name) => COLOURS[name] ?? name;

function byName(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) | 0;
  return colour(PALETTE[Math.abs(hash) % PALETTE.length]);
}

function scaled(value, base, names, decimals) {
  let power = 0;
  while (Math.abs(value) >= base && power < names.length - 1) { value /= base; power += 1; }
  return `${trimmed(value, decimals)}${names[power]}`;
}

function trimmed(value, decimals) {
  if (decimals !== undefined) return value.toFixed(decimals);
  const size = Math.abs(value);
  return String(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)));
}

function seconds(value, decimals) {
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 0.001) return `${trimmed(value * 1e6)} µs`;
  if (size < 1) return `${trimmed(value * 1e3, decimals && 0)} ms`;
  if (size < 60) return `${trimmed(value, decimals)} s`;
  return size < 3600 ? `${trimmed(value / 60, decimals)} min` : `${trimmed(value / 3600, decimals)} hour`;
}

// A value as Grafana writes it in this unit.
function written(value, { unit, decimals, mappings = [] }) {
  const text = mappings[0]?.options[String(value)]?.text;
  if (text) return text;
  if (unit === "s") return seconds(value, decimals);
  if (unit === "percentunit") return `${trimmed(value * 100, decimals)}%`;
  if (unit === "bytes") return scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"], decimals);
  if (unit === "ops") return `${trimmed(value, decimals)} ops/s`;
  if (unit.startsWith("suffix:")) return `${trimmed(value, decimals)}${unit.slice("suffix:".length)}`;
  return scaled(value, 1000, ["", " K", " Mil"], decimals);
}

function stepColour(value, steps) {
  return colour(steps.filter((step) => step.value === null || value >= step.value).at(-1).color);
}

function nameOf(line, target) {
  if (target.legendFormat === "__auto") return JSON.stringify(line.metric);
  return target.legendFormat.replaceAll(/{{(\w+)}}/g, (_, label) => line.metric[label] ?? "");
}

function element(parent, tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  parent.append(made);
  return made;
}

// Every line of a panel: its name, look, and values at each step (null where there is none).
function linesOf(panel, answers) {
  const { defaults, overrides } = panel.fieldConfig;
  return answers.flatMap((lines, place) => lines.map((line) => {
    const target = panel.targets[place], name = nameOf(line, target);
    const look = { ...defaults.custom, colour: byName(name), hidden: false };
    for (const { matcher, properties } of overrides) {
      if (![name, target.refId].includes(matcher.options)) continue;
      for (const { id, value } of properties) {
        if (id === "color") look.colour = colour(value.fixedColor);
        if (id === "custom.hideFrom") look.hidden = value.legend;
        if (id.startsWith("custom.")) look[id.slice("custom.".length)] = value;
      }
    }
    const values = new Array((PREVIEW.to - PREVIEW.from) / PREVIEW.step + 1).fill(null);
    for (const [at, value] of line.values ?? []) {
      if (Number.isFinite(Number(value))) values[Math.round((at - PREVIEW.from) / PREVIEW.step)] = Number(value);
    }
    return { name, look, values, last: Number(line.value?.[1] ?? values.findLast((value) => value !== null)) };
  }));
}

function timeseries(panel, content, lines) {
  const { defaults } = panel.fieldConfig, logarithmic = defaults.custom.scaleDistribution.type === "log";
  const legend = element(content, "div", "legend");
  for (const name of new Set(lines.filter((line) => !line.look.hidden).map((line) => line.name))) {
    const entry = element(legend, "span");
    element(entry, "i").style.background = lines.find((line) => line.name === name).look.colour;
    entry.append(name);
  }
  const times = lines[0].values.map((_, place) => PREVIEW.from + place * PREVIEW.step);
  const sum = new Array(times.length).fill(0);
  const drawn = lines.map((line) => {
    if (line.look.stacking.mode !== "normal") return line;
    const values = line.values.map((value, place) => (sum[place] += value ?? 0));
    return { ...line, values };
  });
  // The highest area first: each lower one is drawn over it.
  const stacked = drawn.filter((line) => line.look.stacking.mode === "normal").reverse();
  const order = [...stacked, ...drawn.filter((line) => !stacked.includes(line))];
  const axis = { stroke: AXIS_TEXT, font: "12px Inter", grid: { stroke: GRID, width: 1 }, ticks: { show: false } };
  new uPlot({
    width: content.clientWidth, height: content.clientHeight - legend.offsetHeight - 4, legend: { show: false }, cursor: { show: false },
    padding: [6, 8, 0, 0],
    scales: { x: { min: PREVIEW.from, max: PREVIEW.to, time: true },
      y: logarithmic ? { distr: 3 } : { range: (_, low, high) => [0, defaults.max ?? Math.max(high * 1.08, 1e-9)] } },
    axes: [
      { ...axis, space: 70, size: 24, values: (_, marks) => marks.map((at) => new Date(at * 1000).toISOString().slice(11, 16)) },
      { ...axis, space: 28, size: 62, ...(defaults.decimals === 0 ? { incrs: [1, 2, 5, 10, 20, 50, 100] } : {}), values: (_, marks) => marks.map((mark) => logarithmic && !isPower(mark) ? "" : written(mark, { ...defaults, decimals: undefined })) },
    ],
    series: [{}, ...order.map(({ look }) => ({
      stroke: look.colour, width: look.stacking.mode === "normal" ? 0 : 1.3, dash: look.lineStyle?.dash, points: { show: false },
      fill: look.fillOpacity ? opaque(look) : undefined,
    }))],
  }, [times, ...order.map((line) => line.values)], content);
}

// On a logarithmic axis only powers of ten have a number.
function isPower(mark) {
  return Math.abs(Math.log10(mark) % 1) < 1e-6;
}

// An area of a stack hides those below it; a line's fill does not.
function opaque({ colour: line, fillOpacity, stacking }) {
  const share = fillOpacity / 100, parts = [1, 3, 5].map((at) => parseInt(line.slice(at, at + 2), 16));
  if (stacking.mode !== "normal") return `rgba(${parts}, ${share})`;
  const background = [0x18, 0x1b, 0x1f];
  return `rgb(${parts.map((part, place) => Math.round(part * share + background[place] * (1 - share)))})`;
}

function stat(panel, content, lines) {
  const { defaults } = panel.fieldConfig, [line] = lines;
  const shown = stepColour(line.last, defaults.thresholds.steps), text = written(line.last, defaults);
  content.style.color = shown;
  content.classList.toggle("text", !/\d/.test(text));
  const canvas = element(content, "canvas");
  canvas.width = content.clientWidth; canvas.height = content.clientHeight * 0.5;
  const high = Math.max(...line.values, 1e-9), pen = canvas.getContext("2d");
  pen.beginPath(); pen.moveTo(0, canvas.height);
  line.values.forEach((value, place) =>
    pen.lineTo((place / (line.values.length - 1)) * canvas.width, canvas.height * (1 - (0.95 * (value ?? 0)) / high)));
  pen.lineTo(canvas.width, canvas.height);
  pen.fillStyle = shown; pen.globalAlpha = 0.22; pen.fill();
  element(content, "span", "", text);
}

function bargauge(panel, content, lines) {
  const { defaults } = panel.fieldConfig, high = Math.max(...lines.map((line) => line.last));
  const gauge = element(content, "div", "gauge");
  for (const line of lines) {
    element(gauge, "div", "name", line.name);
    const bar = element(element(gauge, "div", "track"), "div"), shown = stepColour(line.last, defaults.thresholds.steps);
    bar.style.cssText = `width: ${(100 * line.last) / high}%; background: linear-gradient(90deg, ${shown}66, ${shown})`;
    element(gauge, "div", "value", written(line.last, defaults)).style.color = shown;
  }
}

function table(panel, content, _, answers) {
  const { renameByName } = panel.transformations.find(({ id }) => id === "organize").options;
  const made = element(content, "table"), head = element(made, "tr");
  for (const heading of Object.values(renameByName)) element(head, "th", "", heading);
  for (const line of answers.flat()) {
    const row = element(made, "tr");
    for (const label of Object.keys(renameByName)) element(row, "td", "", line.metric[label] ?? "");
  }
}

function bar({ title, templating }) {
  const top = element(document.body, "div", "bar"), heading = element(top, "h1", "", `Dashboards › Headrace › ${title}`);
  const at = (time) => new Date(time * 1000).toISOString().slice(0, 16).replace("T", " ");
  element(heading, "small", "", `preview, not Grafana · ${at(PREVIEW.from)} to ${at(PREVIEW.to)} UTC`);
  for (const { name } of templating.list) {
    const choice = element(top, "div", "choice");
    element(choice, "b", "", name); element(choice, "span", "", "All");
  }
}

const KINDS = { timeseries, stat, bargauge, table };
bar(PREVIEW.dashboard);
const column = (document.body.clientWidth - 2 * GAP_PX + GAP_PX) / 24;
PREVIEW.dashboard.panels.forEach((panel, number) => {
  const { x, y, w, h } = panel.gridPos, answers = PREVIEW.answers[number];
  const frame = element(document.body, "div", `panel ${panel.type}`);
  frame.style.cssText = `left: ${GAP_PX + x * column}px; top: ${TOP_PX + y * (CELL_PX + GAP_PX)}px;`
    + `width: ${w * column - GAP_PX}px; height: ${h * (CELL_PX + GAP_PX) - GAP_PX}px`;
  element(element(frame, "h2", "", panel.title), "i", "", "i");
  const content = element(frame, "div", "content"), lines = linesOf(panel, answers);
  const known = lines.some((line) => Number.isFinite(line.last));
  if (known) KINDS[panel.type](panel, content, lines.filter((line) => Number.isFinite(line.last)), answers);
  else element(content, "div", "empty", panel.fieldConfig.defaults.noValue);
});
