// Elements and numbers. Names from the dataset only ever become text or attributes, never HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// An HTML element with attributes ("onclick" and the like are listeners) and children, elements or text.
function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// The same for SVG.
function shape(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function section(id, title, explanation, ...children) {
  const heading = make("h2", { id: `${id}-title` }, title);
  return make("section", { id, "aria-labelledby": heading.id }, heading, explanation ? make("p", { class: "soft" }, explanation) : null, ...children);
}

function known(value) {
  return value !== null && value !== undefined;
}

function figure(value) {
  return known(value) ? value.toFixed(3) : "–";
}

function whole(value) {
  return known(value) ? value.toLocaleString("en") : "–";
}

function percent(share) {
  return known(share) ? `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %` : "–";
}

// A number on an axis: two or three digits say enough.
function short(value) {
  if (value >= 1000) return value >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M` : `${+(value / 1000).toPrecision(3)}k`;
  return String(+value.toPrecision(value >= 100 ? 3 : 2));
}

function several(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}
