// The pictures, drawn only while they are near the screen, and the controls that they obey.

// What a gallery shows: its `captions` by side, truth first, and functions of an image and the settings.
const OBJECTS = {
  captions: { truth: "Ground truth", detections: "Detections" }, viewer: "viewer-title",
  overlay, sentence, table: objectTable, total: objectTotal,
};

function gallery(images, settings, kind, onChange) {
  const sides = Object.keys(kind.captions).slice(0, settings.judged ? 2 : 1);
  const grid = make("div", { class: settings.judged ? "gallery pairs" : "gallery" });
  const counts = make("p", { class: "counts small", role: "status" });
  const near = new Set();
  const cards = images.map((image, place) => card(image, place));
  const cardOf = new Map(cards.map((one) => [one.element, one]));
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const one = cardOf.get(target);
      if (isIntersecting) near.add(one), one.show();
      else if (near.delete(one)) one.hide();
    }
  }, { rootMargin: "800px 0px" });
  const enlarged = viewer(settings, kind, sides, () => shownCards().map((one) => one.image));
  let order = [...cards.keys()], matches = () => true;

  function card(image, place) {
    const views = sides.map((side) => view(image, side, settings, kind, () => enlarged.open(image)));
    const line = make("p", { class: "soft" });
    const element = make("article", { class: "card", "data-place": place }, make("header", {}, make("h3", {}, image.file), line), make("div", { class: "views" }, views.map((one) => one.element)));
    const count = () => line.replaceChildren(kind.sentence(image, settings));
    count();
    const show = () => (count(), views.forEach((one) => one.show()));
    return { image, element, show, hide: () => views.forEach((one) => one.hide()) };
  }

  const shownCards = () => order.map((place) => cards[place]).filter((one) => matches(one.image));

  function arrange() {
    const chosen = shownCards();
    grid.replaceChildren(...chosen.map((one) => one.element));
    for (const one of cards) watcher.unobserve(one.element), one.hide();
    near.clear();
    for (const one of chosen) watcher.observe(one.element);
    total();
  }

  const total = () => counts.replaceChildren(kind.total(shownCards().map((one) => one.image), settings));

  function redraw() {
    for (const one of near) one.show();
    enlarged.redraw();
    total();
    onChange();
  }

  const sort = (key) => {
    order = [...cards.keys()].sort((a, b) => key(images[a], images[b]) || a - b);
    arrange();
  };
  const filter = (test) => {
    matches = test;
    arrange();
  };
  return { element: grid, counts, dialog: enlarged.element, arrange, redraw, sort, filter };
}

function objectTotal(images, settings) {
  const sum = { objects: 0, right: 0, wrong: 0, missed: 0, detections: 0 };
  for (const image of images) {
    const now = outcome(image, settings);
    sum.objects += now.objects;
    sum.right += now.right;
    sum.wrong += now.wrong.length;
    sum.missed += now.missed.length;
    sum.detections += now.detections.length;
  }
  const where = `${several(images.length, "image")}: ${several(sum.objects, "object")}`;
  if (!settings.judged) return where;
  return `${where}, ${several(sum.detections, "detection")}: ${whole(sum.right)} right, ${whole(sum.wrong)} wrong; ${whole(sum.missed)} missed`;
}

function sentence(image, settings) {
  const now = outcome(image, settings), size = `${image.width} × ${image.height}`;
  if (!settings.judged) return `${size}, ${several(now.objects, "object")}`;
  return `${size}, ${several(now.objects, "object")}: ${now.right} right, ${now.wrong.length} wrong, ${now.missed.length} missed`;
}

// A picture with its overlay, which `show` draws anew and `hide` takes away. With `open` it is a button.
function view(image, side, settings, kind, open) {
  const [width, height] = image.view;
  const frame = make(open ? "button" : "div", { class: "frame", type: open ? "button" : null, "aria-label": open ? `Enlarge ${image.file}, ${kind.captions[side]}` : null, onclick: open || null });
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `${(85 * width) / height}vh`;
  const show = () => {
    const alt = `${image.file}: ${kind.captions[side]}`;
    const picture = image.picture ? frame.querySelector("img") || make("img", { src: image.picture, alt, decoding: "async" }) : make("span", { class: "gone" }, image.problem);
    const scale = width / (frame.clientWidth || 300);
    frame.replaceChildren(picture, kind.overlay(image, side, settings, scale));
  };
  const caption = settings.judged ? make("figcaption", {}, kind.captions[side]) : null;
  return { element: make("figure", { class: "view" }, caption, frame), show, hide: () => frame.replaceChildren() };
}

// One image as large as the screen, with a list of what is in it.
function viewer(settings, kind, sides, shownImages) {
  const title = make("h3", { id: kind.viewer }), views = make("div", { class: sides.length > 1 ? "views two" : "views" });
  const list = make("div"), line = make("p", { class: "small" });
  let image = null, drawn = [];
  const step = (by) => {
    const images = shownImages(), place = images.indexOf(image) + by;
    if (images.length) look(images[(place + images.length) % images.length]);
  };
  const element = make("dialog", { "aria-labelledby": title.id },
    make("div", { class: "bar" }, title,
      make("button", { class: "button", type: "button", "aria-label": "Previous image", onclick: () => step(-1) }, "←"),
      make("button", { class: "button", type: "button", "aria-label": "Next image", onclick: () => step(1) }, "→"),
      make("button", { class: "button", type: "button", onclick: () => element.close() }, "Close")),
    make("div", { class: "inside" }, line, views, list));
  element.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  element.addEventListener("close", () => views.replaceChildren());

  function look(chosen) {
    image = chosen;
    title.replaceChildren(image.file);
    drawn = sides.map((side) => view(image, side, settings, kind, null));
    views.replaceChildren(...drawn.map((one) => one.element));
    redraw();
  }

  function redraw() {
    if (!element.open) return;
    for (const one of drawn) one.show();
    line.replaceChildren(kind.sentence(image, settings) + (image.note ? ` (${image.note})` : ""));
    list.replaceChildren(kind.table(image, settings));
  }

  const open = (chosen) => {
    element.showModal();
    look(chosen);
  };
  return { element, open, redraw };
}

function objectTable(image, settings) {
  const now = outcome(image, settings);
  const rows = now.detections.map((place) => {
    const one = image.detections[place];
    return [settings.names[one.c], one.s.toFixed(3), VERDICTS[one.v], known(one.t) ? `${settings.names[image.truths[one.t].c]}, IoU ${one.i.toFixed(2)}` : "–"];
  });
  const lost = settings.judged ? now.missed : now.truths;
  for (const place of lost) {
    const one = image.truths[place], best = settings.judged ? image.detections.find((other) => other.v === "correct" && other.t === place) : null;
    rows.push([settings.names[one.c], "–", !settings.judged ? (one.crowd ? "crowd region" : "object") : best ? `missed: found at ${best.s.toFixed(3)} only` : "missed", "–"]);
  }
  return plain(settings.judged ? ["class", "score", "verdict", "object"] : ["class"], settings.judged ? rows : rows.map((row) => [row[0] + (row[2] === "crowd region" ? ", crowd region" : "")]), `Objects of ${image.file}`);
}
