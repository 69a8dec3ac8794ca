// What the reader chooses: the score threshold, what is drawn, which classes and which images.

function controls(data, settings, pictures) {
  const bar = make("div", { class: "controls" });
  if (settings.judged) bar.append(slider(settings, pictures));
  bar.append(pictures.counts);
  const wide = matchMedia("(min-width: 60rem)").matches;
  const options = make("details", { class: "options", open: wide }, make("summary", {}, "What is shown"),
    make("div", { class: "row" }, ...toggles(data, settings, pictures)),
    make("div", { class: "row" }, ...choices(data, settings, pictures)));
  if (settings.severalClasses) options.append(classes(data.classes, colourOf, settings, pictures));
  return [bar, options];
}

function slider(settings, pictures) {
  const shown = make("output", { for: "threshold" }, settings.threshold.toFixed(2));
  const input = make("input", { type: "range", id: "threshold", min: 0, max: 1, step: 0.01, value: settings.threshold });
  input.addEventListener("input", () => {
    settings.threshold = Number(input.value);
    shown.replaceChildren(settings.threshold.toFixed(2));
    pictures.redraw();
  });
  return make("div", { class: "slider" }, make("label", { for: "threshold" }, "Score ≥"), input, shown);
}

function toggle(text, key, settings, pictures, id = `show-${key}`) {
  const input = make("input", { type: "checkbox", id, checked: settings[key] });
  input.addEventListener("change", () => {
    settings[key] = input.checked;
    pictures.redraw();
  });
  return make("label", {}, input, text);
}

function toggles(data, settings, pictures) {
  const any = (name) => data.images.some((image) => [...image.truths, ...(image.detections || [])].some((one) => one[name]));
  return [
    any("m") ? toggle("Masks", "masks", settings, pictures) : null,
    toggle("Boxes", "boxes", settings, pictures),
    any("k") ? toggle("Keypoints", "keypoints", settings, pictures) : null,
    toggle("Labels", "labels", settings, pictures),
    settings.judged ? toggle("Ground truth over detections", "truthOver", settings, pictures) : null,
  ].filter(Boolean);
}

function choice(text, id, options, onchange) {
  const select = make("select", { id }, options.map(([value, name, selected]) => make("option", { value, selected }, name)));
  select.addEventListener("change", () => onchange(select.value));
  return make("label", { class: "choice" }, text, select);
}

function choices(data, settings, pictures) {
  const colours = [["class", "class", settings.colour === "class"], ["object", "object", settings.colour === "object"]];
  if (settings.judged) colours.unshift(["outcome", "right or wrong", settings.colour === "outcome"]);
  const orders = { listed: (a, b) => (a.rank || 0) - (b.rank || 0), objects: (a, b) => b.truths.length - a.truths.length, name: (a, b) => a.file.localeCompare(b.file) };
  const found = [
    choice("Colour by", "colour", colours, (value) => {
      settings.colour = value;
      pictures.redraw();
    }),
    choice("Order", "order", [["listed", settings.judged ? "worst first" : "as in the json"], ["objects", "most objects first"], ["name", "file name"]], (value) => pictures.sort(orders[value])),
  ];
  if (!settings.judged) return found;
  const kinds = ["class", "localisation", "both", "duplicate", "background"];
  const tests = { all: () => true, missed: (image) => outcome(image, settings).missed.length > 0 };
  for (const kind of kinds) tests[kind] = (image) => outcome(image, settings).detections.some((place) => image.detections[place].v === kind);
  const names = [["all", "all images"], ["missed", "missed objects"], ...kinds.map((kind) => [kind, `wrong: ${VERDICTS[kind]}`])];
  found.push(choice("Only images with", "filter", names, (value) => pictures.filter(tests[value])));
  return found;
}

// Boxes to tick for classes, each beside its colour, a function of its place.
function classes(list, colour, settings, pictures) {
  const boxes = list.map((one, index) => {
    const input = make("input", { type: "checkbox", "data-class": index, checked: true });
    input.addEventListener("change", () => {
      settings.hidden[input.checked ? "delete" : "add"](index);
      pictures.redraw();
    });
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = colour(index);
    return { input, name: one.name, label: make("label", {}, input, swatch, make("span", {}, one.name)) };
  });
  const all = (checked) => {
    boxes.forEach(({ input, label }, index) => {
      if (label.hidden) return;
      input.checked = checked;
      settings.hidden[checked ? "delete" : "add"](index);
    });
    pictures.redraw();
  };
  const search = make("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class" });
  search.addEventListener("input", () => {
    for (const { name, label } of boxes) label.hidden = !name.toLowerCase().includes(search.value.toLowerCase());
  });
  return make("fieldset", {}, make("legend", {}, "Classes"),
    make("div", { class: "row" },
      make("button", { class: "button", type: "button", onclick: () => all(true) }, "All"),
      make("button", { class: "button", type: "button", onclick: () => all(false) }, "None"),
      boxes.length > 12 ? search : null),
    make("div", { class: "row class-list" }, boxes.map(({ label }) => label)));
}
