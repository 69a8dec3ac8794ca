// The sections on segments and classes of pixels: panoptic quality, IoU, and what the dataset's pixels are.

function panopticSections(data) {
  const { figures } = data.regions, found = [];
  if (!figures) return found;
  if (figures.panoptic) found.push([panopticSection(data), "Panoptic"]);
  if (figures.semantic) found.push([semanticSection(data), "Pixels"]);
  return found;
}

function panopticSection(data) {
  const { panoptic: p, notes } = data.regions.figures;
  const kinds = [["All", p.all], ["Things", p.things], ["Stuff", p.stuff]];
  const number = (title, key) => ({ title, value: (row) => row[key], text: (row) => figure(row[key]) });
  const count = (title, key) => ({ title, value: (row) => row[key], text: (row) => whole(row[key]) });
  const columns = [
    { title: "Class", value: (row) => row.name, words: true }, { title: "Kind", value: (row) => (row.isthing ? "thing" : "stuff"), words: true },
    number("PQ", "PQ"), number("SQ", "SQ"), number("RQ", "RQ"), count("Matched", "tp"), count("Missed", "fn"), count("False", "fp"),
  ];
  return section("panoptic", "Panoptic quality", `${several(p.images, "image")} evaluated. PQ is the mean over classes of SQ × RQ: SQ is the mean IoU of the segments that are matched, RQ the F1 score of matching, which takes the same class and an IoU above 0.5.`,
    tiles([[figure(p.all.PQ), "PQ"], [figure(p.things.PQ), "PQ of things"], [figure(p.stuff.PQ), "PQ of stuff"], [figure(p.all.SQ), "SQ"], [figure(p.all.RQ), "RQ"]]),
    plain(["", "PQ", "SQ", "RQ", "classes"], kinds.map(([name, one]) => [name, figure(one.PQ), figure(one.SQ), figure(one.RQ), whole(one.n)]), "Panoptic quality"),
    make("p", { class: "soft small" }, "Segments class by class. Choose a heading to sort."),
    sortable(columns, p.per_class, "Panoptic quality of each class"),
    ...(data.findings ? [] : notes).map((note) => make("p", { class: "small" }, note)),
    p.skipped.length ? leftOut(p.skipped, "Left out of the panoptic evaluation") : null);
}

function semanticSection(data) {
  const { panoptic, semantic: s, notes } = data.regions.figures;
  const columns = [
    { title: "Class", value: (row) => row.name, words: true },
    { title: "IoU", value: (row) => row.IoU, text: (row) => figure(row.IoU) }, { title: "Accuracy", value: (row) => row.accuracy, text: (row) => figure(row.accuracy) },
    { title: "Pixels", value: (row) => row.pixels, text: (row) => whole(row.pixels) },
  ];
  return section("pixels", "Each pixel's class", `${several(s.images, "image")} evaluated, before instances and stuff are fused: all things are one class here. Accuracy is the share of a class's pixels that were given it.`,
    tiles([[figure(s.mIoU), "mean IoU"], [figure(s.pixel_accuracy), "accuracy of all pixels"]]),
    sortable(columns, s.per_class, "IoU of each class"),
    ...(data.findings || panoptic ? [] : notes).map((note) => make("p", { class: "small" }, note)),
    s.skipped.length ? leftOut(s.skipped, "Left out of the evaluation of pixels") : null);
}

function pixelTiles(data) {
  const { classes: [things, ...stuff], unlabelled_share } = data.regions.statistics;
  const share = stuff.reduce((sum, one) => sum + one.share, 0);
  return [[percent(things.share), "of the pixels are things"], [percent(share), `are stuff, ${several(stuff.length, "class", "classes")}`], [percent(unlabelled_share), "have no class"]];
}

function pixelCharts(data) {
  if (!data.regions) return [];
  const { classes: rows, pixels, unlabelled, unlabelled_share, images } = data.regions.statistics;
  const shown = [...rows].sort((a, b) => b.pixels - a.pixels).slice(0, MOST_CLASSES);
  const list = shown.map((one) => ({ label: one.id === null ? "all things" : one.name, value: one.pixels, text: `${percent(one.share)} in ${several(one.images, "image")}` }));
  const rest = rows.length > shown.length ? ` The ${shown.length} largest of ${rows.length} classes.` : "";
  return [panel("Pixels per class", `Of ${short(pixels)} pixels in ${several(images, "image")}. No class: void, ignored or of a class that isn't in use.${rest}`,
    () => bars([...list, { label: "no class", value: 0, second: unlabelled, text: percent(unlabelled_share) }]))];
}

function pixelsOnly(data) {
  const { statistics: s } = data;
  const charts = [...pixelCharts(data), datasetCharts(s)[1]];
  return section("dataset", "The dataset", null, tiles([[whole(s.images), s.images === 1 ? "image" : "images"], ...pixelTiles(data)]), make("div", { class: "charts" }, ...charts),
    s.skipped.length ? leftOut(s.skipped, "Records that can't be used") : null);
}
