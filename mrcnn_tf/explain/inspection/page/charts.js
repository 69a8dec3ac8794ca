// Charts as inline SVG, drawn at the width that they have, so that their text is as large on a phone as on a desk.

const MARGIN = { left: 46, right: 14, top: 20, bottom: 42 };
const HEIGHT = 230;

// A titled panel whose drawing, a function of its width in pixels, is repeated when the width changes.
function panel(title, explanation, drawing, ...below) {
  const place = make("div", { class: "chart" });
  let width = 0;
  const redraw = () => {
    if (width > 0) place.replaceChildren(drawing(width));
  };
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now === width) return;
    width = now;
    redraw();
  }).observe(place);
  const element = make("div", { class: "panel" }, make("h3", {}, title), explanation ? make("p", { class: "soft small" }, explanation) : null, place, ...below);
  element.redraw = redraw;
  return element;
}

function canvas(width, label, ...children) {
  return shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label }, ...children);
}

function axes(width, xLabel, yLabel, xTicks, yTicks) {
  const right = width - MARGIN.right, bottom = HEIGHT - MARGIN.bottom;
  return [
    ...yTicks.flatMap(([y, text]) => [
      shape("line", { class: "axis", x1: MARGIN.left, x2: right, y1: y, y2: y }),
      shape("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, text),
    ]),
    ...xTicks.map(([x, text]) => shape("text", { x, y: bottom + 17, "text-anchor": "middle" }, text)),
    shape("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }),
    shape("text", { x: (MARGIN.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xLabel),
    shape("text", { x: 0, y: 11 }, yLabel),
  ];
}

function niceStep(most, ticks = 4) {
  const rough = Math.max(most, 1e-9) / ticks, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
}

// Bars of a histogram; `marks`, [[value, text], ...], are dashed lines across it.
function histogram({ edges, counts, log }, title, xLabel, yLabel, marks = []) {
  return (width) => {
    const bottom = HEIGHT - MARGIN.bottom, inner = width - MARGIN.left - MARGIN.right;
    const transform = log ? Math.log2 : (value) => value;
    let low = transform(edges[0]), high = transform(edges[edges.length - 1]);
    for (const [value] of marks) [low, high] = [Math.min(low, transform(value) - (log ? 0.25 : 0)), Math.max(high, transform(value) + (log ? 0.25 : 0))];
    const x = (value) => MARGIN.left + ((transform(value) - low) / (high - low || 1)) * inner;
    const most = Math.max(...counts, 1), step = Math.max(1, niceStep(most));
    const top = Math.ceil(most / step) * step, y = (count) => bottom - (count / top) * (bottom - MARGIN.top);
    const yTicks = [];
    for (let count = 0; count <= top; count += step) yTicks.push([y(count), short(count)]);
    const every = Math.ceil(edges.length / Math.max(2, Math.floor(inner / 52)));
    const single = !log && edges[1] - edges[0] === 1; // bars that stand for one number each
    const xTicks = edges.flatMap((edge, index) => (index % every || (single && index === counts.length) ? [] : [[x(edge + (single ? 0.5 : 0)), short(edge)]]));
    const bars = counts.map((count, index) => {
      const left = x(edges[index]), right = x(edges[index + 1]);
      const range = single ? short(edges[index]) : `${short(edges[index])} to ${short(edges[index + 1])}`;
      return shape("rect", { class: "bar", x: left + 0.5, y: y(count), width: Math.max(1, right - left - 1), height: bottom - y(count) }, shape("title", {}, `${range}: ${whole(count)}`));
    });
    const lines = marks.flatMap(([value, text]) => [
      shape("line", { class: "mark", x1: x(value), x2: x(value), y1: MARGIN.top, y2: bottom }),
      shape("text", { class: "mark-label", x: x(value), y: MARGIN.top - 3, "text-anchor": "middle" }, text),
    ]);
    const total = counts.reduce((sum, count) => sum + count, 0);
    return canvas(width, `${title}: histogram of ${whole(total)} values`, ...axes(width, xLabel, yLabel, xTicks, yTicks), ...bars, ...lines);
  };
}

const DASHES = ["", "8 4", "2 4"];
const INKS = ["var(--right)", "var(--wrong)", "var(--third)"];

// Curves over 0 to 1 in both directions; `series` and `marker` are functions, as a choice may change them.
function curves(series, title, xLabel, yLabel, marker) {
  return (width) => {
    const bottom = HEIGHT - MARGIN.bottom, inner = width - MARGIN.left - MARGIN.right;
    const x = (value) => MARGIN.left + value * inner, y = (value) => bottom - value * (bottom - MARGIN.top);
    const ticks = [0, 0.25, 0.5, 0.75, 1];
    const paths = series().map(({ xs, ys }, index) => {
      const points = xs.flatMap((value, place) => (known(ys[place]) ? [`${x(value).toFixed(1)},${y(ys[place]).toFixed(1)}`] : []));
      return points.length ? shape("path", { class: "curve", d: `M${points.join("L")}`, stroke: INKS[index], "stroke-dasharray": DASHES[index] }) : null;
    });
    const at = marker ? marker() : null;
    const line = at === null ? [] : [shape("line", { class: "mark", x1: x(at), x2: x(at), y1: MARGIN.top, y2: bottom })];
    const label = `${title}: ${series().map(({ name }) => name).join("; ")}`;
    return canvas(width, label, ...axes(width, xLabel, yLabel, ticks.map((t) => [x(t), String(t)]), ticks.map((t) => [y(t), String(t)])), ...line, ...paths);
  };
}

function legend(series) {
  return make("ul", { class: "legend" }, series.map(({ name }, index) =>
    make("li", {}, shape("svg", { viewBox: "0 0 34 12", "aria-hidden": "true" }, shape("line", { x1: 0, x2: 34, y1: 6, y2: 6, stroke: INKS[index], "stroke-width": 2.5, "stroke-dasharray": DASHES[index] })), name)));
}

// Widths and heights of images as dots, larger where there are more.
function sizes(rows, title) {
  return (width) => {
    const bottom = HEIGHT - MARGIN.bottom, inner = width - MARGIN.left - MARGIN.right;
    const widest = Math.max(...rows.map((row) => row[0])), highest = Math.max(...rows.map((row) => row[1]));
    const most = Math.max(...rows.map((row) => row[2]));
    const xStep = niceStep(widest), yStep = niceStep(highest);
    const right = Math.ceil((widest * 1.05) / xStep) * xStep, top = Math.ceil((highest * 1.05) / yStep) * yStep;
    const x = (value) => MARGIN.left + (value / right) * inner, y = (value) => bottom - (value / top) * (bottom - MARGIN.top);
    const range = (end, step, place) => Array.from({ length: Math.round(end / step) + 1 }, (_, index) => [place(index * step), short(index * step)]);
    const dots = rows.map(([w, h, count]) =>
      shape("circle", { class: "dot", cx: x(w), cy: y(h), r: 3 + 9 * Math.sqrt(count / most) }, shape("title", {}, `${w} x ${h}: ${several(count, "image")}`)));
    return canvas(width, `${title}: ${several(rows.length, "size")}`, ...axes(width, "width, pixels", "height, pixels", range(right, xStep, x), range(top, yStep, y)), ...dots);
  };
}

// Horizontal bars as a list; a row is {label, value, text, second}, `second` a part drawn behind the value.
function bars(rows, most = Math.max(...rows.map((row) => row.value + (row.second || 0)), 1e-9)) {
  const part = (value, name) => {
    const element = make("div", { class: name });
    element.style.width = `${(100 * Math.max(0, value)) / most}%`;
    return element;
  };
  return make("dl", { class: "bars" }, rows.map((row) =>
    make("div", {},
      make("dt", {}, row.label),
      make("dd", { class: "track", "aria-hidden": "true" }, part(row.value, "fill"), row.second ? part(row.second, "fill second") : null),
      make("dd", { class: "number" }, row.text))));
}
