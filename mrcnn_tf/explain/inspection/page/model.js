// The sections on a model: figures, errors, curves, confusion, classes.

const KINDS = { bbox: "boxes", segm: "masks", keypoints: "keypoints" };
const ERROR_WORDS = {
  class: "Wrong class, right place", localisation: "Right class, badly placed", both: "Wrong class and badly placed",
  duplicate: "A second detection of one object", background: "Nothing there", missed: "Object not found",
};
const MOST_CONFUSED = 24; // classes in the matrix

function figuresSection({ findings }) {
  const { results: r, curves: c, threshold, kind } = findings;
  const kinds = Object.keys(KINDS).filter((name) => r[name]);
  const rows = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "AR", "AR50", "AR75", "ARs", "ARm", "ARl"]
    .filter((name) => kinds.some((one) => name in r[one]))
    .map((name) => [name, ...kinds.map((one) => (name in r[one] ? figure(r[one][name]) : ""))]);
  const best = c.all_classes.best_f1;
  return section("figures", "COCO's figures", `${several(r.images, "image")} evaluated. AP is the mean over IoU 0.50 to 0.95; s, m and l are objects below 32², up to 96² and above.`,
    tiles([
      ...kinds.map((one) => [figure(r[one].AP), `AP of ${KINDS[one]}`]), ...kinds.map((one) => [figure(r[one].AP50), `AP50 of ${KINDS[one]}`]),
      ...(known(best) ? [[threshold.toFixed(2), `score threshold with the best F1, ${figure(best)}`]] : []),
    ]),
    make("details", { class: "options", open: true }, make("summary", {}, "All figures"), plain(["", ...kinds.map((one) => KINDS[one])], rows, "COCO's figures")),
    ...r.notes.map((note) => make("p", { class: "small" }, note)),
    r.skipped.length ? leftOut(r.skipped, "Left out of the evaluation") : null,
    make("p", { class: "soft small" }, `Below, a detection is right if it has an object's class and overlaps its ${kind === "segm" ? "mask" : "box"} with an IoU of at least 0.5.`));
}

function errorsSection({ findings }) {
  const { errors: e, threshold } = findings;
  const rows = Object.keys(ERROR_WORDS).map((name) => [name, e.costs[name]]).sort((a, b) => b[1] - a[1]);
  const [worst, cost] = rows[0];
  const text = cost > 0 ? `${ERROR_WORDS[worst]}: this costs the most, ${figure(cost)} of AP50, which is ${figure(e.ap)}.` : "No kind of error costs anything.";
  return section("errors", "What goes wrong", text,
    make("div", { class: "charts" },
      panel("AP50 that each kind of error costs", "By how much AP50 would rise if that kind alone were mended.", () => bars(rows.map(([name, value]) => ({ label: ERROR_WORDS[name], value, text: `+${value.toFixed(3)}` })))),
      panel("How many there are", `At a score of ${threshold.toFixed(2)} or more; ${whole(e.counts.correct)} detections are right.`, () => bars(rows.map(([name]) => ({ label: ERROR_WORDS[name], value: e.counts[name], text: whole(e.counts[name]) }))))));
}

function curvesSection({ findings }, settings) {
  const { curves: c } = findings;
  let chosen = c.all_classes;
  const ious = Object.keys(c.all_classes.precision);
  const against = () => ["precision", "recall", "f1"].map((name) => ({ name: name === "f1" ? "F1" : name, xs: c.thresholds, ys: chosen.against_threshold[name] }));
  const recall = () => ious.map((key) => ({ name: `IoU ${key.replace(":", " to ")}: AP ${figure(chosen.ap[key])}`, xs: c.recalls, ys: chosen.precision[key] }));
  const recallLegend = make("div", {}, legend(recall()));
  const charts = [
    panel("Precision against recall", "As in COCO's AP; the area below a curve is its AP.", curves(recall, "Precision against recall", "recall", "precision"), recallLegend),
    panel("Against the score threshold", "Dashed: the threshold that is chosen below, by the pictures.", curves(against, "Precision, recall and F1 against the score threshold", "score threshold", "share", () => settings.threshold), legend(against())),
  ];
  const select = choice("Class", "curve-class", [["-1", "all classes", true], ...c.classes.map((one, index) => [index, one.name])], (value) => {
    chosen = Number(value) < 0 ? c.all_classes : c.classes[Number(value)];
    recallLegend.replaceChildren(legend(recall()));
    for (const chart of charts) chart.redraw();
  });
  const element = section("curves", "Precision and recall", null, c.classes.length > 1 ? make("div", { class: "row" }, select) : null, make("div", { class: "charts" }, charts));
  return { element, redraw: charts[1].redraw };
}

function classSection({ findings, statistics }) {
  const { results: r, curves: c, errors: e } = findings;
  const kinds = Object.keys(KINDS).filter((name) => r[name]);
  const byId = (rows) => new Map(rows.map((row) => [row.id, row]));
  const [counts, lines, splits] = [byId(statistics.classes), byId(c.classes), byId(e.classes)];
  const worst = ({ id }) => {
    const costs = Object.entries((splits.get(id) || { costs: {} }).costs).filter(([, cost]) => cost > 0).sort((a, b) => b[1] - a[1]);
    return costs.length ? costs[0] : null;
  };
  const columns = [
    { title: "Class", value: (row) => row.name, words: true },
    { title: "Objects", value: (row) => (counts.get(row.id) || { objects: 0 }).objects },
    ...kinds.flatMap((kind) => ["AP", "AP50"].map((name) => ({ title: `${name} ${KINDS[kind]}`, value: (row) => row[`${kind}_${name}`], text: (row) => figure(row[`${kind}_${name}`]) }))),
    { title: "Best F1", value: (row) => (lines.get(row.id) || {}).best_f1, text: (row) => figure((lines.get(row.id) || {}).best_f1) },
    { title: "at score", value: (row) => (lines.get(row.id) || {}).best_threshold, text: (row) => { const at = (lines.get(row.id) || {}).best_threshold; return known(at) ? at.toFixed(2) : "–"; } },
    { title: "Costliest error", words: true, value: (row) => (worst(row) ? worst(row)[0] : null), text: (row) => (worst(row) ? `${ERROR_WORDS[worst(row)[0]].toLowerCase()} (${worst(row)[1].toFixed(3)})` : "–") },
  ];
  return section("classes", "Class by class", "Choose a heading to sort.", sortable(columns, r.per_class, "Figures of each class"));
}

function confusionSection({ findings }) {
  const { names, counts, min_score } = findings.confusion, none = names.length;
  const mixed = names.map((_, place) => {
    let sum = 0;
    for (let other = 0; other < none; other++) if (other !== place) sum += counts[place][other] + counts[other][place];
    return sum;
  });
  const frequent = [...names.keys()].sort((a, b) => mixed[b] - mixed[a] || a - b).slice(0, MOST_CONFUSED).sort((a, b) => a - b);
  const pairs = [];
  for (let row = 0; row < none; row++) for (let column = 0; column < none; column++) if (row !== column && counts[row][column]) pairs.push([row, column, counts[row][column]]);
  pairs.sort((a, b) => b[2] - a[2]);
  const some = names.length > frequent.length ? ` The ${frequent.length} of ${names.length} classes that are mixed up most.` : "";
  const list = pairs.slice(0, 5).map(([row, column, count]) => make("li", {}, `${names[row]} taken for ${names[column]}: ${whole(count)}`));
  return section("confusion", "What is taken for what", `Objects by what they are (rows) and what they were detected as (columns), at a score of ${min_score.toFixed(2)} or more.${some}`,
    list.length ? make("ul", { class: "small" }, list) : null, confusionTable(names, counts, frequent));
}
