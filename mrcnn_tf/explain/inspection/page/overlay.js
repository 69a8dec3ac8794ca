// What is drawn over a picture: ground truth with dashed lines, detections with whole ones. Coordinates are those of
// `image.view`, whose longer side has always the same length.

// Okabe and Ito, "Color Universal Design" (2008): told apart with any common colour blindness.
const COLOURS = ["#009ed7", "#e69f00", "#00b27d", "#f0e442", "#cc79a7", "#d55e00", "#56b4e9", "#145ac8"];
const RIGHT = "#35a7e8", WRONG = "#ff8a1f", NEITHER = "#b8bcc2";
const VERDICTS = {
  correct: "right", class: "wrong class", localisation: "badly placed", both: "wrong class and place",
  duplicate: "duplicate", background: "nothing there", ignored: "in a crowd region",
};

function colourOf(index) {
  return COLOURS[index % COLOURS.length];
}

// What an image's objects and detections come to at the settings' threshold, of the classes that are shown.
// `found` holds the detection of each ground truth that has one, by their places in the image's lists.
function outcome(image, settings) {
  const shown = (one) => !settings.hidden.has(one.c);
  const found = new Map(), detections = [];
  (image.detections || []).forEach((one, place) => {
    if (one.s < settings.threshold || !shown(one)) return;
    detections.push(place);
    if (one.v === "correct") found.set(one.t, place);
  });
  const truths = [...image.truths.keys()].filter((place) => shown(image.truths[place]));
  const asked = truths.filter((place) => !image.truths[place].crowd && !image.truths[place].uncounted);
  const wrong = detections.filter((place) => !["correct", "ignored"].includes(image.detections[place].v));
  return { truths, detections, found, wrong, right: found.size, objects: asked.length, missed: asked.filter((place) => !found.has(place)) };
}

// The overlay of one side, "truth" or "detections"; `scale` is units of the view per pixel of the screen.
function overlay(image, side, settings, scale) {
  const now = outcome(image, settings);
  const [width, height] = image.view;
  const svg = shape("svg", { class: "overlay", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const layers = [], taken = [];
  const write = (label, box) => writing(label, box, taken, image.view, scale);
  if (side === "truth" || settings.truthOver) {
    for (const place of now.truths) layers.push(truth(image.truths[place], place, now, settings, scale, side === "truth" && write));
  }
  if (side === "detections") {
    // The best detections come first in the list and lie on top.
    for (const place of [...now.detections].reverse()) layers.push(detection(image.detections[place], place, settings, scale, write));
  }
  svg.append(...layers);
  return svg;
}

function truth(one, place, now, settings, scale, write) {
  const missed = now.missed.includes(place) && settings.judged;
  let colour = one.crowd || one.uncounted ? NEITHER : missed ? WRONG : RIGHT;
  if (settings.colour !== "outcome") colour = colourOf(settings.colour === "class" ? one.c : place);
  const words = [settings.severalClasses ? settings.names[one.c] : null, one.crowd ? "crowd" : null, missed ? "missed" : null];
  const label = words.filter(Boolean).join(", ");
  return instance(one, `truth${missed ? " wrong" : ""}`, colour, missed ? `✕ ${label}` : label, settings, scale, write);
}

function detection(one, place, settings, scale, write) {
  const good = one.v === "correct", ignored = one.v === "ignored";
  let colour = good ? RIGHT : ignored ? NEITHER : WRONG;
  if (settings.colour !== "outcome") colour = colourOf(settings.colour === "class" ? one.c : place);
  const name = settings.severalClasses ? `${settings.names[one.c]} ` : "";
  const label = `${good || ignored ? "" : "✕ "}${name}${one.s.toFixed(2)}`;
  return instance(one, `detection${good || ignored ? "" : " wrong"}`, colour, label, settings, scale, write);
}

// The closed rings of a mask or a region as an SVG path.
function rings(list) {
  return list.map((ring) => `M${ring.map((value, index) => (index % 2 ? `${value} ` : `${value},`)).join("")}Z`).join("");
}

function instance(one, kind, colour, label, settings, scale, write) {
  const group = shape("g", { class: kind });
  if (settings.masks && one.m && one.m.length) {
    const d = rings(one.m);
    group.append(shape("path", { class: "mask fill", d, fill: colour }), shape("path", { class: "rim", d }), shape("path", { class: "stroke", d, stroke: colour }));
  }
  const [x, y, width, height] = one.b;
  if (settings.boxes) {
    group.append(shape("rect", { class: "rim", x, y, width, height }), shape("rect", { class: "box stroke", x, y, width, height, stroke: colour }));
  }
  if (settings.keypoints && one.k) group.append(...limbs(one, colour, settings, scale));
  if (settings.labels && label && write) group.append(write(label, one.b));
  return group;
}

// A label above its box or, where others stand already, a little lower; always inside the picture.
function writing(label, [x, y], taken, [width, height], scale) {
  const size = 12.5 * scale, length = 0.68 * size * [...label].length;
  const left = Math.max(0, Math.min(x + 2 * scale, width - length));
  const hides = (top) => taken.some((one) => left < one.left + one.length && one.left < left + length && Math.abs(one.top - top) < size);
  const first = Math.max(0, Math.min(y - 1.25 * size, height - 1.25 * size));
  const places = [0, 1, 2, 3, 4, 5].map((step) => Math.min(first + step * size, height - 1.25 * size));
  const top = places.find((place) => !hides(place)) ?? first;
  taken.push({ left, top, length });
  return shape("text", { x: left, y: top + size, "font-size": size }, label);
}

// Keypoints as dots, hollow where hidden, and the limbs between them.
function limbs(one, colour, settings, scale) {
  const points = [];
  for (let at = 0; at < one.k.length; at += 3) points.push(one.k.slice(at, at + 3));
  const lines = settings.skeletons[one.c].flatMap(([from, to]) => {
    const a = points[from - 1], b = points[to - 1];
    if (!a || !b || !a[2] || !b[2]) return [];
    const ends = { x1: a[0], y1: a[1], x2: b[0], y2: b[1] };
    return [shape("line", { class: "rim", ...ends }), shape("line", { class: "limb stroke", ...ends, stroke: colour })];
  });
  const dots = points.filter((point) => point[2]).map(([x, y, v]) =>
    shape("circle", { class: "keypoint", cx: x, cy: y, r: 3 * scale, fill: v === 2 ? colour : "none", stroke: v === 2 ? "#000" : colour, "stroke-width": 1.5 }));
  return [...lines, ...dots];
}
