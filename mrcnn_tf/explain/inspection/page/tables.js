// Tables of figures.

// A table whose columns sort it. `columns` are {title, value(row), text(row), words}; rows without a value come last.
function sortable(columns, rows, caption) {
  const body = make("tbody");
  const headings = [];
  const fillIn = (sorted) => body.replaceChildren(...sorted.map((row) => make("tr", {}, columns.map((column, index) => {
    const text = column.text ? column.text(row) : column.value(row);
    return index ? make("td", { class: column.words ? "words" : null }, text) : make("th", { scope: "row", title: text }, text);
  }))));
  const sort = (index) => {
    const { value, words } = columns[index], heading = headings[index];
    const before = heading.getAttribute("aria-sort");
    // Numbers begin with the largest, words with A.
    const direction = before === "none" ? (words ? "ascending" : "descending") : before === "ascending" ? "descending" : "ascending";
    for (const other of headings) other.setAttribute("aria-sort", other === heading ? direction : "none");
    const sign = direction === "ascending" ? 1 : -1;
    fillIn([...rows].sort((a, b) => {
      const [one, other] = [value(a), value(b)];
      if (!known(one) || !known(other)) return known(other) - known(one);
      return sign * (words ? one.localeCompare(other) : one - other);
    }));
  };
  columns.forEach((column, index) => headings.push(
    make("th", { scope: "col", class: "sorted", "aria-sort": "none" }, make("button", { type: "button", onclick: () => sort(index) }, column.title))));
  fillIn(rows);
  return scrolling(make("table", {}, make("thead", {}, make("tr", {}, headings)), body), caption);
}

// A table may be wider than a phone: it scrolls by itself, with the keyboard as well.
function scrolling(table, label) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

function plain(headings, rows, caption) {
  return scrolling(make("table", {},
    make("thead", {}, make("tr", {}, headings.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), rest.map((text) => make("td", {}, text)))))), caption);
}

// Rows are the truth, columns what was detected; `chosen` are the classes to show, places in `names`.
function confusionTable(names, counts, chosen) {
  const none = names.length, places = [...chosen, none];
  const heading = (text) => make("th", { scope: "col", title: text }, make("span", {}, text));
  const cell = (row, column, sum) => {
    const count = counts[row][column];
    const words = row === none ? `nothing there, taken for ${names[column]}` : column === none ? `${names[row]}, not found` : `${names[row]}, taken for ${names[column]}`;
    const element = make("td", { class: row === column && row !== none ? "same" : null, title: `${words}: ${count}` }, row === none && column === none ? "" : count ? whole(count) : "·");
    const tint = row === column ? "var(--right)" : "var(--wrong)";
    if (count) element.style.background = `color-mix(in srgb, ${tint} ${Math.round(8 + (42 * count) / sum)}%, var(--surface))`;
    return element;
  };
  const body = places.map((row) => {
    const sum = Math.max(1, counts[row].reduce((total, count) => total + count, 0));
    const name = row === none ? "nothing there" : names[row];
    return make("tr", {}, make("th", { scope: "row", title: name }, name), places.map((column) => cell(row, column, sum)));
  });
  const table = make("table", { class: "confusion" },
    make("thead", {}, make("tr", {}, make("td", { class: "soft small" }, "truth ↓  detected →"), chosen.map((place) => heading(names[place])), heading("not found"))),
    make("tbody", {}, body));
  return scrolling(table, "Confusion matrix");
}
