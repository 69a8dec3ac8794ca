// The pictures of segments or of classes of pixels: each region in its class's colour, its name well inside it.

const REGIONS = {
  captions: { truth: "Ground truth", found: "Found" }, viewer: "region-viewer-title",
  overlay: regionOverlay, sentence: regionSentence, table: regionTable, total: regionTotal,
};
const REGION_VERDICTS = { matched: "matched", false: "false", ignored: "in void or a crowd region", compared: "", missed: "missed", crowd: "crowd region", uncounted: "not evaluated" };

function regionGallery(data) {
  const { classes: known, segments, figures } = data.regions;
  const settings = {
    judged: Boolean(figures) && data.images.some((image) => image.regions && image.regions.found), segments,
    fills: true, labels: true, colour: "class", hidden: new Set(), names: known.map((one) => one.name), colours: known.map((one, place) => one.colour || colourOf(place)),
  };
  const shown = data.images.filter((image) => image.regions);
  const pictures = gallery(shown, settings, REGIONS, () => {});
  const title = segments ? "Segments" : "Classes of pixels";
  const element = section("regions", settings.judged ? `${title}, ground truth and found` : title, regionWords(data, settings, shown), make("div", { class: "controls" }, pictures.counts),
    regionControls(known, settings, pictures), pictures.element, pictures.dialog);
  return [element, title, pictures];
}

function regionWords(data, settings, shown) {
  const all = data.regions.statistics.images, order = settings.judged ? `, the lowest ${settings.segments ? "panoptic quality" : "mean IoU"} first` : "";
  const words = [shown.length < all ? `${whole(shown.length)} of ${several(all, "image")}${order}.` : `${several(all, "image")}${order}.`];
  if (settings.judged && settings.segments) words.push("✕ and an orange outline mark segments that are missed or false.");
  words.push("What has no colour belongs to no class. Choose a picture to enlarge it.", ...(data.findings ? [] : data.notes));
  return words.join(" ");
}

function regionControls(known, settings, pictures) {
  const wide = matchMedia("(min-width: 60rem)").matches;
  const orders = {
    listed: () => 0, name: (a, b) => a.file.localeCompare(b.file), regions: (a, b) => b.regions.truth.length - a.regions.truth.length,
  };
  const row = [
    toggle("Colours", "fills", settings, pictures, "show-fills"), toggle("Names", "labels", settings, pictures, "show-names"),
    choice("Order", "region-order", [["listed", settings.judged ? "worst first" : "as listed"], ["regions", settings.segments ? "most segments first" : "most classes first"], ["name", "file name"]], (value) => pictures.sort(orders[value])),
  ];
  if (settings.judged && settings.segments) {
    const tests = { all: () => true, missed: (image) => regionOutcome(image, settings).missed > 0, false: (image) => regionOutcome(image, settings).false > 0 };
    row.push(choice("Colour by", "region-colour", [["class", "class", true], ["outcome", "right or wrong"]], (value) => {
      settings.colour = value;
      pictures.redraw();
    }));
    row.push(choice("Only images with", "region-filter", [["all", "all images"], ["missed", "missed segments"], ["false", "false segments"]], (value) => pictures.filter(tests[value])));
  }
  return make("details", { class: "options", open: wide }, make("summary", {}, "What is shown"), make("div", { class: "row" }, row),
    classes(known, (place) => settings.colours[place], settings, pictures));
}

// How many regions of the classes that are shown there are, and what became of them.
function regionOutcome(image, settings) {
  const shown = (list) => (list || []).filter((one) => !settings.hidden.has(one.c));
  const truth = shown(image.regions.truth), found = shown(image.regions.found), count = (list, kind) => list.filter((one) => one.v === kind).length;
  const matched = count(truth, "matched"), missed = count(truth, "missed");
  // Crowd regions, and what the model has no class for, need not be found.
  return { truth: image.regions.found && settings.segments ? matched + missed : truth.length, matched, missed, false: count(found, "false") };
}

function regionSentence(image, settings) {
  const now = regionOutcome(image, settings), size = `${image.width} × ${image.height}`;
  const there = settings.segments ? several(now.truth, "segment") : several(now.truth, "class", "classes");
  if (!settings.judged) return `${size}, ${there}`;
  if (!image.regions.found) return `${size}, ${there}; it wasn't evaluated`;
  const quality = `${settings.segments ? "PQ" : "mean IoU"} ${figure(image.regions.q)}`;
  return settings.segments ? `${size}, ${quality}. ${there}: ${now.matched} matched, ${now.missed} missed; ${now.false} false` : `${size}, ${quality}`;
}

function regionTotal(images, settings) {
  const sum = { truth: 0, matched: 0, missed: 0, false: 0 };
  for (const image of images) {
    const now = regionOutcome(image, settings);
    for (const key of Object.keys(sum)) sum[key] += now[key];
  }
  const where = several(images.length, "image");
  if (!settings.segments) return where;
  return settings.judged ? `${where}: ${several(sum.truth, "segment")}, ${whole(sum.matched)} matched, ${whole(sum.missed)} missed; ${whole(sum.false)} false` : `${where}: ${several(sum.truth, "segment")}`;
}

// The overlay of one side, "truth" or "found"; `scale` is units of the view per pixel of the screen.
function regionOverlay(image, side, settings, scale) {
  const [width, height] = image.view, taken = [];
  const svg = shape("svg", { class: settings.fills ? "overlay coloured" : "overlay", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const wrong = (one) => ["missed", "false"].includes(one.v);
  // Wrong ones last, so that no neighbour's outline hides theirs.
  const list = (image.regions[side] || []).filter((one) => !settings.hidden.has(one.c)).sort((a, b) => wrong(a) - wrong(b) || b.n - a.n);
  const names = [];
  for (const one of list) {
    const d = rings(one.m), right = one.v === "matched" ? RIGHT : NEITHER;
    const colour = settings.colour === "outcome" ? (wrong(one) ? WRONG : right) : settings.colours[one.c];
    svg.append(shape("g", { class: `region ${side}${wrong(one) ? " wrong" : ""}` },
      settings.fills ? shape("path", { class: "fill", d, fill: colour }) : null, shape("path", { class: "rim", d }), shape("path", { class: "border", d })));
  }
  for (const one of [...list].sort((a, b) => b.n - a.n)) {
    if (settings.labels && one.p) names.push(regionName(`${wrong(one) ? "✕ " : ""}${settings.names[one.c]}${one.crowd ? ", crowd" : ""}`, one, image, taken, scale));
  }
  svg.append(...names.filter(Boolean));
  return svg;
}

// A region's name in its deepest place; none in one that is smaller than the name, or where others stand already.
function regionName(label, one, image, taken, scale) {
  const [width, height] = image.view, size = 12.5 * scale, length = 0.62 * size * [...label].length;
  if (one.n * (width / image.width) ** 2 < size * length) return null;
  const left = Math.max(0, Math.min(one.p[0] - length / 2, width - length));
  const hides = (top) => taken.some((other) => left < other.left + other.length && other.left < left + length && Math.abs(other.top - top) < size);
  const places = [0, -1, 1, -2, 2].map((step) => Math.max(0, Math.min(one.p[1] + (step - 0.6) * size, height - 1.25 * size)));
  const top = places.find((place) => !hides(place));
  if (top === undefined) return null;
  taken.push({ left, top, length });
  return shape("text", { x: left + length / 2, y: top + size, "font-size": size, "text-anchor": "middle" }, label);
}

function regionTable(image, settings) {
  const { truth, found } = image.regions, pixels = image.width * image.height, name = (one) => settings.names[one.c];
  const share = (one) => percent(one.n / pixels), overlapped = (one, others) => (known(one.t) ? `${name(others[one.t])}, IoU ${one.i.toFixed(2)}` : "–");
  if (!found) return plain(["class", "of the image"], truth.map((one) => [name(one) + (one.crowd ? ", crowd region" : ""), share(one)]), `Regions of ${image.file}`);
  if (!settings.segments) {
    const other = (one) => found.find((two) => two.c === one.c);
    const rows = truth.map((one) => [name(one), share(one), other(one) ? share(other(one)) : "–", (one.i || 0).toFixed(3)]);
    for (const one of found) if (!truth.some((two) => two.c === one.c)) rows.push([name(one), "–", share(one), "–"]);
    return plain(["class", "of the image", "found", "IoU"], rows, `Classes of ${image.file}`);
  }
  const rows = found.map((one) => [name(one), share(one), REGION_VERDICTS[one.v], overlapped(one, truth)]);
  for (const one of truth) if (one.v !== "matched") rows.push([name(one), share(one), REGION_VERDICTS[one.v], overlapped(one, found)]);
  return plain(["class", "of the image", "verdict", "overlaps most"], rows, `Segments of ${image.file}`);
}
