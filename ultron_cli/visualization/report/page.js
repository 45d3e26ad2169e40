"use strict";
// Names and other text from the data are set as text, never as HTML: a photo may be called <script>.
const data = JSON.parse(document.getElementById("data").textContent);
const SIGNS = { right: "\u2713", wrong: "\u2717", ignored: "\u2013", none: "" };
const first = data.results[0], second = data.results[1];
const state = { protocol: "medium", sort: "name", down: false, find: "", under: null, moved: false, current: 0, pair: null };
const byId = (id) => document.getElementById(id);
const secondQueries = second ? new Map(second.queries.map((query) => [query.name, query])) : null;
const hasTruth = Object.keys(first.scores).length > 0;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
const percent = (value) => (value === null || value === undefined ? "\u2013" : (100 * value).toFixed(2));

function verdict(label) {
  if (!hasTruth) return "none";
  const protocol = data.protocols[state.protocol];
  if (protocol.positive.includes(label)) return "right";
  return protocol.ignored.includes(label) ? "ignored" : "wrong";
}

// mAP of the second search minus that of the first, and how sure that is.
function comparisonCard() {
  const card = element("div", "card"), table = element("table"), head = element("tr");
  const signed = (value) => `${value > 0 ? "+" : ""}${percent(value)}`;
  card.id = "comparison";
  card.append(element("h2", "", `${second.label} minus ${first.label}`));
  for (const text of ["", "mAP, %", "95 % interval", "p", "smallest", "better", "worse"]) head.append(element("th", "", text));
  table.append(head);
  for (const part of data.comparison) {
    const row = element("tr"), [low, high] = part.interval;
    for (const text of [part.protocol, signed(part.difference), `${signed(low)} to ${signed(high)}`, part.p, percent(part.smallest), part.n_better, part.n_worse]) row.append(element("td", "", text));
    table.append(row);
  }
  card.append(table);
  for (const part of data.comparison) card.append(element("p", "small", `${part.protocol}: ${part.verdict}`));
  card.append(element("p", "small", "A is the first, B the second. Interval: BCa bootstrap over queries. p: paired randomisation test. Smallest: the true difference that so many queries show in four of five cases."));
  return card;
}

function drawHead() {
  document.title = data.title;
  byId("title").textContent = data.title;
  const made = data.made_by || {};
  byId("facts").textContent = `${data.dataset}: ${first.queries.length} queries, ${first.n_database.toLocaleString("en")} database photos; made by ultron ${made.ultron_version || ""} ${(made.created || "").slice(0, 16).replace("T", " ")} UTC`;
  for (const result of data.results) {
    const card = element("div", "card"), table = element("table"), head = element("tr");
    card.append(element("h2", "", result.label));
    for (const text of ["", "mAP, %", "95 % interval", "mP@1", "mP@5", "mP@10", "queries"]) head.append(element("th", "", text));
    table.append(head);
    for (const [name, part] of Object.entries(result.scores)) {
      const row = element("tr");
      const interval = part.interval ? part.interval.map((side) => (100 * side).toFixed(1)).join(" to ") : percent(null);
      for (const text of [name, percent(part.mAP), interval, ...["1", "5", "10"].map((k) => percent(part.mP[k])), part.queries]) row.append(element("td", "", text));
      table.append(row);
    }
    if (Object.keys(result.scores).length) card.append(table);
    else card.append(element("p", "small", "no ground truth: no scores"));
    for (const text of result.warnings) card.append(element("p", "small", `warning: ${text}`));
    const list = element("dl");
    for (const [key, value] of result.settings) list.append(element("dt", "", key), element("dd", "", value));
    card.append(list);
    byId("summary").append(card);
  }
  if (data.comparison.length) byId("summary").append(comparisonCard());
  for (const name of Object.keys(data.protocols)) {
    const label = element("label"), input = element("input");
    Object.assign(input, { type: "radio", name: "protocol", value: name, checked: name === state.protocol });
    input.addEventListener("change", () => setProtocol(name));
    label.append(input, " " + name);
    byId("protocols").append(label);
  }
  byId("protocols").hidden = !hasTruth;
  byId("moved-only").hidden = !second;
}

const difference = (query) => {
  const other = secondQueries && secondQueries.get(query.name);
  const [a, b] = [query.ap[state.protocol], other && other.ap[state.protocol]];
  return a === null || a === undefined || b === null || b === undefined ? null : b - a;
};

function columns() {
  const list = [{ key: "name", text: "query", value: (query) => query.name }];
  if (hasTruth) for (const name of Object.keys(data.protocols)) list.push({ key: name, text: `AP ${name}`, value: (query) => query.ap[name] ?? null });
  if (second && hasTruth) {
    list.push({ key: "second", text: `AP of ${second.label}`, value: (query) => secondQueries.get(query.name)?.ap[state.protocol] ?? null });
    list.push({ key: "difference", text: "difference", value: difference });
  }
  return list;
}

function shownQueries() {
  const column = columns().find((entry) => entry.key === state.sort) || columns()[0];
  const queries = first.queries.filter((query) => {
    const ap = query.ap[state.protocol];
    if (state.find && !query.name.toLowerCase().includes(state.find)) return false;
    if (state.under !== null && !(ap !== null && ap !== undefined && 100 * ap < state.under)) return false;
    return !state.moved || Boolean(difference(query));
  });
  const order = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  return queries.sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return state.down ? order(y, x) : order(x, y);
  });
}

function drawTable() {
  const head = element("tr");
  for (const column of columns()) {
    const cell = element("th"), button = element("button", "", column.text + (state.sort === column.key ? (state.down ? " \u25be" : " \u25b4") : ""));
    cell.setAttribute("aria-sort", state.sort === column.key ? (state.down ? "descending" : "ascending") : "none");
    button.addEventListener("click", () => { state.down = state.sort === column.key ? !state.down : false; state.sort = column.key; draw(); });
    cell.append(button);
    head.append(cell);
  }
  const queries = shownQueries(), body = queries.map((query, i) => {
    const row = element("tr", i === state.current ? "current" : "");
    row.tabIndex = 0;
    for (const column of columns()) {
      const value = column.value(query), cell = element("td", "", typeof value === "string" ? value : percent(value));
      if (column.key === "difference" && value) { cell.className = value > 0 ? "up" : "down"; cell.textContent = (value > 0 ? "\u25b2 +" : "\u25bc ") + percent(value); }
      row.append(cell);
    }
    row.addEventListener("click", () => choose(i));
    return row;
  });
  document.querySelector("#queries thead").replaceChildren(head);
  document.querySelector("#queries tbody").replaceChildren(...body);
  byId("shown").textContent = `${queries.length} of ${first.queries.length} queries`;
}

function photoButton(query, photo, rank, resultIndex) {
  const kind = verdict(photo.label), button = element("button", `photo ${kind}`), image = element("img"), caption = element("span", "caption");
  button.type = "button";
  image.src = data.thumbnails[photo.thumbnail];
  image.alt = `rank ${rank}, ${kind}: ${photo.name}`;
  caption.append(element("b", kind, `${SIGNS[kind]} ${rank}`), ` ${photo.score.toFixed(3)}`);
  const moved = resultIndex === 1 ? movedFrom(query.name, photo.name, rank) : null;
  if (moved) caption.append(" ", element("span", moved.up ? "up" : "down", moved.text));
  if (photo.map) caption.append(" \u25a6");
  if (photo.inliers > 0) caption.append(" ", element("span", photo.promoted ? "up" : "small", `${photo.promoted ? "promoted by " : ""}${photo.inliers} inliers`));
  caption.append(element("span", "name", photo.name));
  button.title = photo.name;
  button.append(image, caption);
  image.addEventListener("load", () => { caption.style.width = `${Math.max(118, image.clientWidth)}px`; });
  button.addEventListener("click", () => openPair(resultIndex, query.name, rank - 1));
  if (photo.geometry) {
    const show = () => drawInliers(byId("list-inliers"), button.closest(".row").querySelector(".query img"), image, photo.geometry);
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, hideInliers);
  }
  return button;
}

// How far a photo has moved from the first search to the second.
function movedFrom(queryName, photoName, rank) {
  const before = first.queries.find((query) => query.name === queryName);
  const listed = before.photos.findIndex((photo) => photo.name === photoName) + 1, old = listed || before.ranks[photoName];
  if (!old) return { up: true, text: "\u25b2 new here" };
  if (old === rank) return null;
  return old > rank ? { up: true, text: `\u25b2 ${old - rank}` } : { up: false, text: `\u25bc ${rank - old}` };
}

function drawList() {
  const query = shownQueries()[state.current], box = byId("lists");
  box.replaceChildren();
  if (!query) { box.append(element("p", "small", "no query matches")); return; }
  box.append(element("h2", "", query.name));
  data.results.forEach((result, index) => {
    const searchQuery = index === 0 ? query : secondQueries.get(query.name), row = element("div", "row"), left = element("div", "query"), image = element("img");
    const ap = searchQuery.ap[state.protocol];
    if (second) box.append(element("p", "small", `${result.label}${ap === null || ap === undefined ? "" : `: AP ${percent(ap)} % (${state.protocol})`}`));
    image.src = data.thumbnails[searchQuery.thumbnail];
    image.alt = `query ${searchQuery.name}`;
    left.append(image, element("span", "small", !second && ap !== null && ap !== undefined ? `AP ${percent(ap)} % (${state.protocol})` : "query"));
    const photos = element("div", "photos");
    searchQuery.photos.forEach((photo, i) => photos.append(photoButton(searchQuery, photo, i + 1, index)));
    row.append(left, photos);
    box.append(row);
  });
}

function draw() {
  const n = shownQueries().length;
  state.current = Math.max(0, Math.min(state.current, n - 1));
  drawTable();
  drawList();
}
function choose(i) {
  state.current = i;
  draw();
  const row = document.querySelector("#queries tr.current");
  if (row) row.scrollIntoView({ block: "nearest" });
}
function setProtocol(name) {
  state.protocol = name;
  for (const input of document.getElementsByName("protocol")) input.checked = input.value === name;
  draw();
}

// The colours of heat (inferno, five stops): even in perception, rising in lightness.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
function heatColour(value) {
  const at = value * (STOPS.length - 1), i = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[i].map((low, channel) => low + (STOPS[i + 1][channel] - low) * (at - i));
}
function drawPhoto(canvas, source, map, done) {
  const image = new Image();
  image.onload = () => {
    const factor = Math.min(560 / image.naturalWidth, 560 / image.naturalHeight), context = canvas.getContext("2d");
    canvas.width = Math.round(image.naturalWidth * factor);
    canvas.height = Math.round(image.naturalHeight * factor);
    context.filter = map ? "grayscale(1)" : "none";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    if (map) {
      const bytes = Uint8Array.from(atob(map.data), (letter) => letter.charCodeAt(0)), small = document.createElement("canvas");
      [small.width, small.height] = [map.w, map.h];
      const pixels = small.getContext("2d").createImageData(map.w, map.h);
      bytes.forEach((byte, i) => pixels.data.set([...heatColour(byte / 255), 255 * (0.35 + 0.4 * byte / 255)], 4 * i));
      small.getContext("2d").putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = true;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
    }
    if (done) done();
  };
  image.src = source;
}

function hideInliers() {
  for (const id of ["list-inliers", "pair-inliers"]) byId(id).replaceChildren();
}

function openPair(resultIndex, queryName, index) {
  const query = data.results[resultIndex].queries.find((entry) => entry.name === queryName), photo = query.photos[index];
  if (!photo) return;
  state.pair = { resultIndex, queryName, index };
  const kind = verdict(photo.label);
  byId("pair-title").textContent = `${second ? data.results[resultIndex].label + ", " : ""}rank ${index + 1} of ${query.name}: ${kind === "none" ? "" : SIGNS[kind] + " " + kind}`;
  byId("query-caption").textContent = `query ${query.name}`;
  byId("photo-caption").textContent = `${photo.name}, score ${photo.score.toFixed(4)}${photo.label ? `, labelled ${photo.label}` : ""}`;
  if (photo.geometry) byId("photo-caption").textContent += `; ${photo.promoted ? "promoted: " : ""}${inliersText(photo.geometry)}`;
  byId("map-switch").hidden = !photo.map;
  byId("inliers-switch").hidden = !photo.geometry;
  hideInliers();
  const hasLines = photo.geometry && byId("inliers-on").checked, isShown = () => state.pair && state.pair.index === index && state.pair.queryName === queryName;
  if (!byId("pair").open) byId("pair").showModal();
  drawPhoto(byId("pair-query"), data.thumbnails[query.thumbnail], null, () => {
    drawPhoto(byId("pair-photo"), data.thumbnails[photo.thumbnail], byId("map-on").checked && !hasLines ? photo.map : null, () => {
      if (hasLines && isShown()) drawInliers(byId("pair-inliers"), byId("pair-query"), byId("pair-photo"), photo.geometry);
    });
  });
}
const closePair = () => { byId("pair").close(); };

byId("close").addEventListener("click", closePair);
byId("pair").addEventListener("close", () => { state.pair = null; });
byId("pair").addEventListener("click", (event) => { if (event.target === byId("pair")) closePair(); });
for (const kind of ["scroll", "resize"]) addEventListener(kind, hideInliers, { passive: true, capture: true });  // lines are drawn where the images were
for (const id of ["map-on", "inliers-on"]) byId(id).addEventListener("change", () => { if (state.pair) openPair(state.pair.resultIndex, state.pair.queryName, state.pair.index); });
byId("find").addEventListener("input", (event) => { state.find = event.target.value.toLowerCase(); draw(); });
byId("under").addEventListener("input", (event) => { state.under = event.target.value === "" ? null : Number(event.target.value); draw(); });
byId("moved").addEventListener("change", (event) => { state.moved = event.target.checked; draw(); });
byId("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  root.classList.toggle("dark", !dark);
  root.classList.toggle("light", dark);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "radio" && event.target.type !== "checkbox") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const pair = state.pair, step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (pair && step) { openPair(pair.resultIndex, pair.queryName, Math.max(0, pair.index + step)); event.preventDefault(); return; }
  if (pair) return;
  const protocol = { e: "easy", m: "medium", h: "hard" }[event.key];
  if (event.key === "j") choose(Math.min(shownQueries().length - 1, state.current + 1));
  else if (event.key === "k") choose(Math.max(0, state.current - 1));
  else if (event.key === "/") { byId("find").focus(); event.preventDefault(); }
  else if (protocol && hasTruth) setProtocol(protocol);
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON" && shownQueries()[state.current]) {
    openPair(0, shownQueries()[state.current].name, 0);
    event.preventDefault();
  }
});
drawHead();
draw();
