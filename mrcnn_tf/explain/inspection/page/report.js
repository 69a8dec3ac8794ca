// The page: reads the data, sets up what the reader may change, and puts the sections together.

function report() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const settings = {
    judged: Boolean(data.findings), threshold: data.findings ? data.findings.threshold : 0,
    masks: true, boxes: !data.images.some((image) => image.truths.some((one) => one.m)), keypoints: true, truthOver: false, labels: few(data.images),
    colour: data.findings ? "outcome" : data.classes.length > 1 ? "class" : "object",
    hidden: new Set(), names: data.classes.map((one) => one.name), skeletons: data.classes.map((one) => one.skeleton), severalClasses: data.classes.length > 1,
  };
  const main = document.getElementById("main"), sections = [];
  let onChange = () => {};
  if (data.regions) sections.push(...panopticSections(data));
  if (data.findings) {
    const lines = curvesSection(data, settings);
    onChange = lines.redraw;
    sections.push([figuresSection(data), "Figures"], [errorsSection(data), "Errors"], [lines.element, "Curves"], [classSection(data), "Classes"]);
    sections.push([confusionSection(data), "Confusion"]);
  }
  const judged = sections.length > 0, galleries = [];
  if (data.regions) galleries.push(regionGallery(data));
  // Objects that were drawn as segments already are drawn once more only if there is something to say of them.
  if (!data.regions || data.findings || (data.classes.length && !data.regions.objects)) {
    const pictures = gallery(data.images, settings, OBJECTS, () => onChange());
    const images = section("images", settings.judged ? "Ground truth and detections" : "Images", galleryWords(data, settings), ...controls(data, settings, pictures), pictures.element, pictures.dialog);
    if (data.regions) pictures.sort((a, b) => (a.rank || 0) - (b.rank || 0)); // they come by the quality of segments
    galleries.push([images, data.regions ? "Objects" : "Images", pictures]);
  }
  const dataset = [datasetSection(data), "Dataset"];
  if (judged) sections.push(...galleries, dataset);
  else sections.push(dataset, ...galleries);
  document.getElementById("top").replaceChildren(...heading(data, sections));
  main.replaceChildren(...sections.map(([element]) => element));
  document.getElementById("foot").replaceChildren(`Written by mrcnn-tf ${data.version} on ${data.made}. This file needs no network.`);
  for (const [, , pictures] of galleries) pictures.arrange();
}

// Labels hide what is below them, so a crowded dataset starts without.
function few(images) {
  const objects = images.reduce((sum, image) => sum + image.truths.length, 0);
  return objects <= 8 * images.length;
}

function heading(data, sections) {
  const facts = data.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return [
    make("h1", {}, data.title), make("dl", { class: "facts" }, facts),
    make("nav", { "aria-label": "Sections" }, sections.map(([element, name]) => make("a", { href: `#${element.id}` }, name))),
  ];
}

function galleryWords(data, settings) {
  const words = [data.images.length < data.statistics.images ? `${whole(data.images.length)} of ${several(data.statistics.images, "image")}${settings.judged ? ", those with the gravest mistakes first" : ""}.` : `${several(data.images.length, "image")}${settings.judged ? ", the gravest mistakes first" : ""}.`];
  if (settings.judged) words.push("Ground truth has dashed lines, detections have whole ones; ✕ marks what is wrong or missed.");
  words.push("Choose a picture to enlarge it.", ...data.notes);
  return words.join(" ");
}

report();
