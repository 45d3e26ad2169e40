"use strict";
// Names and messages are set as text, never as HTML: a photo may be called <script>.
const byId = (id) => document.getElementById(id);
const state = { about: null, source: null, size: null, box: null, answer: null, maps: new Map(), inliers: new Map(), nSearches: 0, open: null, drag: null };
const SIGNS = { right: "✓", wrong: "✗", ignored: "–" };
const CORNERS = ["x1", "y1", "x2", "y2"];

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
async function ask(address, options) {
  let reply;
  try {
    reply = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is `ultron serve` still running?");
  }
  const value = await reply.json().catch(() => ({ error: `the server answered ${reply.status} without JSON` }));
  if (!reply.ok) throw Object.assign(new Error(value.error), { status: reply.status });
  return value;
}
function fail(error) {
  byId("error").textContent = error ? error.message : "";
  byId("error").hidden = !error;
  if (error) byId("status").textContent = "";
}
const picture = (kind, row, size) => `${kind}/${row}?size=${size}&v=${state.about.session}`;

// The photo to search for.
function setSource(source, address, size, box) {
  if (state.source && state.source.address) URL.revokeObjectURL(state.source.address);
  Object.assign(state, { source, size, box, answer: null });
  fail(null);
  byId("photos").replaceChildren();
  byId("legend").hidden = byId("start").hidden = true;
  byId("search").disabled = false;
  byId("photo").src = address;
  byId("stage").hidden = false;
  if (source.kind !== "query") byId("query").value = "";
  drawSource();
}
function drawSource() {
  const known = state.size !== null;
  byId("photo-facts").textContent = `${state.source.name}${known ? `, ${state.size.width} × ${state.size.height} px` : ""}`;
  for (const id of ["hint", "corners"]) byId(id).hidden = !known;
  byId("photo").classList.toggle("small-photo", known && state.size.width < 240);
  drawBox();
}
function drawBox() {
  const box = state.box, shown = byId("box");
  shown.hidden = !box || !state.size;
  CORNERS.forEach((id, i) => { byId(id).value = box ? Math.round(box[i]) : ""; });
  byId("whole").disabled = !box;
  if (shown.hidden) return;
  const { width, height } = state.size;
  for (const [side, value] of [["left", box[0] / width], ["top", box[1] / height], ["width", (box[2] - box[0]) / width], ["height", (box[3] - box[1]) / height]]) {
    shown.style[side] = `${100 * value}%`;
  }
}
async function chooseFile(file) {
  if (!file) return;
  const { upload_bytes: most, pixels } = state.about.limits;
  if (file.size > most) { fail(new Error(`the photo has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ${most / 2 ** 20}`)); return; }
  const address = URL.createObjectURL(file), image = new Image();
  image.src = address;
  let size = null;
  try {
    await image.decode();
    size = { width: image.naturalWidth, height: image.naturalHeight };
  } catch { /* A kind of photo that only the server can read: it is searched whole. */ }
  if (size && size.width * size.height > pixels) {
    URL.revokeObjectURL(address);
    fail(new Error(`the photo has ${(size.width * size.height / 1e6).toFixed(1)} million pixels; at most ${pixels / 1e6}`));
    return;
  }
  setSource({ kind: "upload", body: file, name: file.name, address }, address, size, null);
  search();
}
async function chooseStored(kind, row) {
  try {
    const photo = await ask(`api/${kind}/${row}`);
    setSource({ kind, row, name: photo.name }, picture(kind, row, "large"), { width: photo.width, height: photo.height }, photo.box);
    search();
  } catch (error) { fail(error); }
}

// Searching: only the answer to the latest question is shown.
async function search() {
  if (!state.source) return;
  const number = ++state.nSearches, { source, box } = state, parameters = new URLSearchParams({ k: byId("k").value || state.about.k });
  if (box) parameters.set("box", box.map((side) => side.toFixed(2)).join(","));
  parameters.set("rerank", byId("rerank-on").checked ? byId("rerank").value : "");
  if (source.kind !== "upload") parameters.set(source.kind, source.row);
  byId("photos").classList.add("busy");
  byId("status").textContent = "searching …";
  if (state.running) state.running.abort();
  state.running = new AbortController();
  try {
    const options = { signal: state.running.signal, ...(source.kind === "upload" ? { method: "POST", body: source.body, headers: { "Content-Type": "application/octet-stream" } } : {}) };
    const answer = await ask(`api/search?${parameters}`, options);
    if (number !== state.nSearches) return;
    state.answer = answer;
    state.maps.clear();
    state.inliers.clear();
    fail(null);
    drawAnswer();
  } catch (error) {
    if (number !== state.nSearches || error.name === "AbortError") return;
    state.answer = null;
    byId("photos").replaceChildren();
    fail(error);
  } finally {
    if (number === state.nSearches) byId("photos").classList.remove("busy");
  }
}
// Medium protocol: easy and hard are right, junk is ignored. null: no ground truth for this photo.
function verdict(label) {
  if (label === null || label === undefined) return "";
  return label === "junk" ? "ignored" : label ? "right" : "wrong";
}
function drawAnswer() {
  const { answer } = state, steps = answer.rerank.map((step) => `${step.name} ${step.ms_per_query.toFixed(0)} ms`);
  const promoted = answer.photos.filter((photo) => photo.promoted).length, verified = answer.photos.some((photo) => photo.inliers > 0);
  const gesture = matchMedia("(hover: none)").matches ? "Tap a photo" : "Rest the pointer on a photo";
  const pictures = [...(verified ? ["inliers"] : []), ...(state.about.maps ? ["similarity map"] : [])];
  byId("status").textContent = `${answer.photos.length} of ${state.about.n_photos.toLocaleString("en")} photos in ${answer.seconds.toFixed(2)} s, ${answer.method} search${steps.length ? `, re-ranked: ${steps.join(", ")}` : ""}`
    + (promoted ? `; ${promoted} promoted by inliers` : "")
    + (pictures.length ? `. ${gesture} for its ${pictures.join(" or ")}.` : ". No similarity maps: the server lacks the grad-cam package.");
  byId("legend").hidden = !answer.photos.some((photo) => photo.label !== null);
  byId("photos").replaceChildren(...answer.photos.map(photoCard));
}
function photoCard(photo, index) {
  const kind = verdict(photo.label), card = element("button", `photo ${kind}`), view = element("span", "view"), image = element("img"), caption = element("span", "caption");
  card.type = "button";
  image.src = picture("photo", photo.row, "small");
  image.alt = `rank ${photo.rank}: ${photo.name}`;
  image.loading = index < 24 ? "eager" : "lazy";
  view.append(image);
  const name = element("span", "name", photo.name);
  name.title = photo.name;
  caption.append(element("span", kind, `${photo.rank}. ${kind ? SIGNS[kind] + " " : ""}`), element("span", "score", photo.score.toFixed(4)));
  if (photo.label) caption.append(element("span", "quiet", ` ${photo.label}`));
  if (photo.inliers > 0) caption.append(element("span", photo.promoted ? "promoted" : "quiet", ` ${photo.promoted ? "▲ " : ""}${photo.inliers} inliers`));
  caption.append(name);
  card.append(view, caption);
  let timer = null;
  const showPicture = photo.inliers > 0 ? showInliers : showMap;
  const show = () => { clearTimeout(timer); timer = setTimeout(() => showPicture(photo, view, () => timer !== null), 250); };
  const hide = () => { clearTimeout(timer); timer = null; clearMap(view); byId("card-inliers").replaceChildren(); };
  card.addEventListener("pointerenter", show);
  card.addEventListener("pointerleave", hide);
  card.addEventListener("focus", show);
  card.addEventListener("blur", hide);
  card.addEventListener("click", () => openPair(index));
  return card;
}

// Similarity maps and inliers: asked for once per photo of a search.
function pictureOf(kind, answers, photo) {
  if (!answers.has(photo.row)) {
    const request = ask(`api/${kind}?${new URLSearchParams({ search: state.answer.search, row: photo.row })}`);
    answers.set(photo.row, request);
    request.catch(() => answers.delete(photo.row));
  }
  return answers.get(photo.row);
}
const mapOf = (photo) => pictureOf("map", state.maps, photo);
const inliersOf = (photo) => pictureOf("inliers", state.inliers, photo);
// Lines from the photo searched for, at the left, to the card.
async function showInliers(photo, view, isRestedOn) {
  try {
    const inliers = await inliersOf(photo);
    if (!isRestedOn()) return;
    clearMap(view);
    view.append(element("span", "note", inliersText(inliers)));
    drawInliers(byId("card-inliers"), byId("photo"), view.querySelector("img"), inliers);
  } catch (error) {
    if (isRestedOn()) view.append(element("span", "note", error.message));
  }
}
// The colours of heat (inferno, five stops): even in perception, rising in lightness.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
function heatColour(value) {
  const at = value * (STOPS.length - 1), i = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[i].map((low, channel) => low + (STOPS[i + 1][channel] - low) * (at - i));
}
function paint(canvas, map) {
  const bytes = Uint8Array.from(atob(map.data), (letter) => letter.charCodeAt(0)), small = document.createElement("canvas"), context = canvas.getContext("2d");
  [small.width, small.height] = [map.w, map.h];
  const pixels = small.getContext("2d").createImageData(map.w, map.h);
  bytes.forEach((byte, i) => pixels.data.set([...heatColour(byte / 255), 255 * (0.35 + 0.4 * byte / 255)], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [map.w * 16, map.h * 16];
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}
async function showMap(photo, view, isRestedOn) {
  if (!state.about.maps) return;
  try {
    const map = await mapOf(photo);
    if (!isRestedOn()) return;
    clearMap(view);
    if (map.flat) { view.append(element("span", "note", "no place stands out")); return; }
    const canvas = element("canvas");
    paint(canvas, map);
    view.append(canvas);
    view.classList.add("mapped");
  } catch (error) {
    if (isRestedOn()) view.append(element("span", "note", error.message));
  }
}
function clearMap(view) {
  view.classList.remove("mapped");
  for (const old of view.querySelectorAll("canvas, .note")) old.remove();
}

// One photo, large, beside what was searched for.
function paintBox(canvas, query) {
  const scale = 900 / Math.max(query.width, query.height), context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [Math.round(query.width * scale), Math.round(query.height * scale)];
  if (!query.box) return;
  const [x1, y1, x2, y2] = query.box.map((side) => side * scale);
  for (const [colour, width] of [["#000", 9], ["#f0e442", 5]]) {
    [context.strokeStyle, context.lineWidth] = [colour, width];
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}
async function openPair(index) {
  const photo = state.answer && state.answer.photos[index];
  if (!photo) return;
  state.open = index;
  const canvas = byId("pair-map"), view = canvas.parentElement, kind = verdict(photo.label);
  byId("pair-title").textContent = `rank ${photo.rank}: ${photo.name}`;
  byId("pair-facts").textContent = `score ${photo.score.toFixed(4)}${kind ? `, ${kind}` : ""}${photo.label ? `, labelled ${photo.label}` : ""}`;
  byId("pair-photo").src = picture("photo", photo.row, "large");
  byId("pair-photo").alt = byId("pair-name").textContent = photo.name;
  byId("pair-query").src = byId("photo").src;
  paintBox(byId("pair-box"), state.answer.query);
  byId("map-switch").hidden = !state.about.maps;
  byId("inliers-switch").hidden = !(photo.inliers > 0);
  byId("pair-inliers").replaceChildren();
  canvas.hidden = true;
  view.classList.remove("mapped");
  if (!byId("pair").open) byId("pair").showModal();
  if (photo.inliers > 0 && byId("inliers-on").checked) { showPairInliers(index, photo); return; }
  if (!state.about.maps || !byId("map-on").checked) return;
  try {
    const map = await mapOf(photo);
    if (state.open !== index || !byId("map-on").checked) return;
    byId("pair-facts").textContent += map.flat ? "; no place stands out" : `; cosine at one scale ${map.cosine.toFixed(4)}`;
    if (map.flat) return;
    paint(canvas, map);
    canvas.hidden = false;
    view.classList.add("mapped");
  } catch (error) {
    if (state.open === index) byId("pair-facts").textContent += `; no map: ${error.message}`;
  }
}

async function showPairInliers(index, photo) {
  try {
    const inliers = await inliersOf(photo);
    await Promise.all(["pair-query", "pair-photo"].map((id) => byId(id).decode().catch(() => null)));
    if (state.open !== index || !byId("inliers-on").checked) return;
    byId("pair-facts").textContent += `; ${photo.promoted ? "promoted: " : ""}${inliersText(inliers)}`;
    drawInliers(byId("pair-inliers"), byId("pair-query"), byId("pair-photo"), inliers);
  } catch (error) {
    if (state.open === index) byId("pair-facts").textContent += `; no inliers: ${error.message}`;
  }
}

// The box, drawn by pointer.
function place(event) {
  const frame = byId("photo").getBoundingClientRect(), { width, height } = state.size;
  const along = (at, start, length, whole) => Math.min(1, Math.max(0, (at - start) / length)) * whole;
  return [along(event.clientX, frame.left, frame.width, width), along(event.clientY, frame.top, frame.height, height)];
}
function dragged(event) {
  const [x, y] = place(event), [x0, y0] = state.drag.from;
  return [Math.min(x, x0), Math.min(y, y0), Math.max(x, x0), Math.max(y, y0)];
}
const stage = byId("stage");
stage.addEventListener("pointerdown", (event) => {
  if (!state.size || event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  state.drag = { from: place(event), before: state.box };
  event.preventDefault();
});
stage.addEventListener("pointermove", (event) => {
  if (!state.drag) return;
  state.box = dragged(event);
  drawBox();
});
stage.addEventListener("pointerup", (event) => {
  if (!state.drag) return;
  const box = dragged(event), frame = byId("photo").getBoundingClientRect(), shown = frame.width / state.size.width, { before } = state.drag;
  state.drag = null;
  const tiny = (box[2] - box[0]) * shown < 6 || (box[3] - box[1]) * shown < 6;  // a click, or a slip
  state.box = tiny ? before : box;
  drawBox();
  if (!tiny) search();
});
stage.addEventListener("pointercancel", () => {
  if (!state.drag) return;
  state.box = state.drag.before;
  state.drag = null;
  drawBox();
});
for (const id of CORNERS) {
  byId(id).addEventListener("change", () => {
    const box = CORNERS.map((corner) => (byId(corner).value === "" ? NaN : Number(byId(corner).value)));
    if (!box.every(Number.isFinite)) return;
    if (box[0] >= box[2] || box[1] >= box[3] || box[0] < 0 || box[1] < 0 || box[2] > state.size.width || box[3] > state.size.height) {
      fail(new Error(`a box lies inside the photo of ${state.size.width} × ${state.size.height} px, left before right and top before bottom`));
      return;
    }
    state.box = box;
    drawBox();
    search();
  });
}
byId("whole").addEventListener("click", () => { state.box = null; drawBox(); search(); });

// The rest of the page.
byId("search").addEventListener("click", search);
for (const id of ["k", "rerank-on"]) byId(id).addEventListener("change", search);
byId("rerank").addEventListener("change", () => { byId("rerank-on").checked = true; search(); });
byId("file").addEventListener("change", (event) => { chooseFile(event.target.files[0]); event.target.value = ""; });
byId("query").addEventListener("change", (event) => { if (event.target.value !== "") chooseStored("query", Number(event.target.value)); });
byId("close").addEventListener("click", () => byId("pair").close());
byId("pair").addEventListener("click", (event) => { if (event.target === byId("pair")) byId("pair").close(); });
byId("pair").addEventListener("close", () => { state.open = null; });
byId("pair").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && state.open !== null) { openPair(state.open + step); event.preventDefault(); }
});
for (const id of ["map-on", "inliers-on"]) byId(id).addEventListener("change", () => openPair(state.open));
// Lines are drawn where the images were.
for (const kind of ["scroll", "resize"]) addEventListener(kind, () => { for (const id of ["card-inliers", "pair-inliers"]) byId(id).replaceChildren(); }, { passive: true, capture: true });
byId("use").addEventListener("click", () => {
  const { row } = state.answer.photos[state.open];
  byId("pair").close();
  chooseStored("photo", row);
});
byId("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  root.classList.toggle("dark", !dark);
  root.classList.toggle("light", dark);
});
const bringsFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!bringsFiles(event)) return;
  event.preventDefault();
  byId("dropping").hidden = false;
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("dropping").hidden = true; });
document.addEventListener("drop", (event) => {
  byId("dropping").hidden = true;
  if (!bringsFiles(event)) return;
  event.preventDefault();
  chooseFile(event.dataTransfer.files[0]);
});

// Some photos to begin with, evenly from the queries, else from the database.
const MOST_AT_START = 12;
function offer(queries) {
  const kind = queries.length ? "query" : "photo", n = queries.length || state.about.n_photos, nShown = Math.min(n, MOST_AT_START);
  byId("start-photos").replaceChildren(...Array.from({ length: nShown }, (_, i) => {
    const place = Math.floor(i * n / nShown), row = queries.length ? queries[place].row : place, name = queries.length ? queries[place].name : `photo ${row + 1}`;
    const button = element("button"), image = element("img");
    button.type = "button";
    image.src = picture(kind, row, "small");
    image.alt = button.title = name;
    image.addEventListener("error", () => button.remove());  // a photo that is gone
    button.append(image);
    button.addEventListener("click", () => {
      if (kind === "query") byId("query").value = row;
      chooseStored(kind, row);
    });
    return button;
  }));
  byId("start").hidden = false;
}

async function start() {
  try {
    const about = await ask("api/about");
    state.about = about;
    document.title = byId("title").textContent = `${about.dataset}: search by photo`;
    byId("facts").textContent = `${about.n_photos.toLocaleString("en")} photos, ${about.model}, ${about.dim}-d, ${about.whitening}, ${about.scales.length === 1 ? "one scale" : `${about.scales.length} scales`}, ${about.search} search; ultron ${about.ultron_version}`;
    byId("k").max = about.most_photos;
    byId("k").value = Math.min(about.k, about.most_photos);
    const chains = about.rerank && !about.rerankers.includes(about.rerank) ? [about.rerank, ...about.rerankers] : about.rerankers;
    for (const name of chains) byId("rerank").append(new Option(name, name));
    if (about.rerank) byId("rerank").value = about.rerank;
    byId("rerank-on").checked = about.rerank !== "";
    const { queries } = await ask("api/queries");
    for (const query of queries) byId("query").append(new Option(query.name, query.row));
    byId("query-choice").hidden = queries.length === 0;
    offer(queries);
    document.documentElement.dataset.ready = "yes";
  } catch (error) { fail(error); }
}
start();
