// The section on the dataset.

const MOST_CLASSES = 40; // as bars; the rest is counted

function datasetSection(data) {
  const { statistics: s } = data;
  if (data.regions && !s.classes.length) return pixelsOnly(data);
  const parts = [
    tiles([
      [whole(s.images), s.images === 1 ? "image" : "images"], [whole(s.objects), s.objects === 1 ? "object" : "objects"],
      [whole(s.classes.length), s.classes.length === 1 ? "class" : "classes"], [whole(s.empty), "images without objects"],
      ...(s.crowds ? [[whole(s.crowds), "crowd regions"]] : []),
      [`${percent(s.small / (s.objects || 1))}`, "small, below 32 × 32 pixels"], [`${percent(s.large / (s.objects || 1))}`, "large, from 96 × 96 pixels"],
    ]),
    ...(data.regions ? [tiles(pixelTiles(data))] : []),
    make("div", { class: "charts" }, ...pixelCharts(data), ...datasetCharts(s)),
  ];
  if (s.skipped.length) parts.push(leftOut(s.skipped, "Records that can't be used"));
  return section("dataset", "The dataset", null, ...parts);
}

function datasetCharts(s) {
  const { anchors } = s, many = s.different_sizes > s.image_sizes.length ? `The ${s.image_sizes.length} most frequent of ${whole(s.different_sizes)} sizes.` : "Larger dots stand for more images.";
  const charts = [
    panel("Objects per class", `${several(s.classes.length, "class", "classes")}; crowd regions aren't counted.`, () => classBars(s.classes)),
    panel("Image sizes", many, sizes(s.image_sizes, "Image sizes")),
  ];
  if (!s.objects) return charts;
  charts.push(
    panel("Objects per image", null, histogram(s.objects_per_image, "Objects per image", "objects", "images")),
    panel("Box sizes against the anchors", anchorWords(s), histogram(anchors.box_sizes, "Box sizes", "√ area, pixels of the resized image", "objects", anchors.sizes.map((size) => [size, short(size)]))),
    panel("Shapes of boxes", `Dashed: the anchors' shapes, ${anchors.ratios.map(short).join(", ")}.`, histogram(s.aspect_ratios, "Shapes of boxes", "height / width", "objects", anchors.ratios.map((ratio) => [ratio, short(ratio)]))),
  );
  if (s.mask_shares) charts.push(panel("Masks", null, histogram(s.mask_shares, "Masks", "share of the image, percent", "objects")));
  const byCategory = Map.groupBy ? Map.groupBy(s.keypoints, (one) => one.category) : group(s.keypoints);
  for (const [category, points] of byCategory) {
    charts.push(panel(`Keypoints of ${category}`, "Filled: visible; hatched: hidden; the rest is not labelled.", () => bars(points.map((one) => ({
      label: one.name, value: one.visible, second: one.hidden, text: `${whole(one.visible)} + ${whole(one.hidden)}`,
    })), Math.max(1, points[0].visible + points[0].hidden + points[0].unlabelled))));
  }
  return charts;
}

function group(points) {
  const found = new Map();
  for (const one of points) found.set(one.category, [...(found.get(one.category) || []), one]);
  return found;
}

function classBars(counts) {
  const sorted = [...counts].sort((a, b) => b.objects - a.objects), shown = sorted.slice(0, MOST_CLASSES);
  const list = bars(shown.map((one) => ({ label: one.name, value: one.objects, text: `${whole(one.objects)} in ${several(one.images, "image")}` })));
  const rest = sorted.slice(MOST_CLASSES);
  if (!rest.length) return list;
  const sum = rest.reduce((total, one) => total + one.objects, 0);
  return make("div", {}, list, make("p", { class: "soft small" }, `and ${several(rest.length, "class", "classes")} more with ${several(sum, "object")} together`));
}

function anchorWords({ anchors: a, objects }) {
  const [shortest, longest] = a.resized_to;
  const words = [`Images are resized to ${shortest} pixels, at most ${longest}. Dashed: the anchors' sizes. ${percent(a.good)} of the objects overlap an anchor of the best size and shape by half or more.`];
  if (a.too_small) words.push(`${whole(a.too_small)} (${percent(a.too_small / objects)}) are too small for that: smaller anchors or larger images may help.`);
  if (a.too_large) words.push(`${whole(a.too_large)} (${percent(a.too_large / objects)}) are too large for that: add a larger anchor.`);
  return words.join(" ");
}

function tiles(rows) {
  return make("div", { class: "tiles" }, rows.map(([value, name]) => make("div", { class: "tile" }, make("strong", {}, value), make("span", {}, name))));
}

function leftOut(sentences, title) {
  return make("details", { class: "options" }, make("summary", {}, `${title}: ${whole(sentences.length)}`), make("ul", { class: "small" }, sentences.slice(0, 200).map((text) => make("li", {}, text))),
    sentences.length > 200 ? make("p", {}, `and ${whole(sentences.length - 200)} more`) : null);
}
