// The grid: tiles that are loaded while one scrolls, moving by keys, and selecting.

import { ask, tried } from "./api.js";
import { byId, element, fill, images, picture, shown } from "./dom.js";
import { asked, showCounts } from "./filter.js";

const MARKS = { labeled: "✓", unsure: "?" };
const grid = byId("grid");
export let items = [];
export const selected = new Set();
export let total = 0;
let tiles = new Map();
let current = 0;
let anchor = 0;
let isAll = true;
let loading = null;
let counting = null;
let open = () => {};
let onSelect = () => {};

export function start(openImage, selectionChanged) {
  open = openImage;
  onSelect = selectionChanged;
  grid.addEventListener("click", clicked);
  grid.addEventListener("keydown", pressed);
  new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) more(); }, { rootMargin: "900px" }).observe(byId("end"));
}

// Show the filter anew, from its first image.
export async function load() {
  loading?.abort();
  items = [];
  tiles = new Map();
  current = anchor = 0;
  isAll = false;
  selected.clear();
  onSelect();
  loading = null;
  refreshCounts();
  await more(true);
}

export async function more(isFirst = false) {
  if (isAll || loading) return;
  loading = new AbortController();
  const parameters = { filter: JSON.stringify(asked()) };
  if (items.length) parameters.after = items.at(-1).id;
  const signal = loading.signal;
  const page = await tried(() => ask("page", parameters, signal));
  if (signal.aborted) return;
  loading = null;
  if (isFirst) fill(grid);
  if (!page) { isAll = true; return; }
  isAll = page.items.length === 0;
  for (const item of page.items) add(item);
  drawEnd();
  if (!isAll && byId("end").getBoundingClientRect().top < innerHeight + 900) more();
}

export async function refreshCounts() {
  counting?.abort();
  counting = new AbortController();
  const signal = counting.signal;
  const counts = await tried(() => ask("counts", { filter: JSON.stringify(asked()) }, signal));
  if (!counts) return;
  total = counts.images;
  byId("count").textContent = images(total);
  showCounts(counts);
  drawEnd();
  onSelect();
}

function drawEnd() {
  byId("end").textContent = items.length ? "" : isAll ? "No image matches. Remove a filter above." : "Loading …";
}

function add(item) {
  const tile = element("li", { class: "tile", role: "option", tabindex: items.length ? "-1" : "0" });
  tile.dataset.id = item.id;
  tiles.set(item.id, tile);
  items.push(item);
  draw(tile, item);
  grid.append(tile);
}

export function describe(item) {
  if (item.status !== "ok") return `${item.status}: ${item.problem}`;
  return item.labels.map((label) => label.name).join(", ") || "no label";
}

function draw(tile, item) {
  const verdict = item.verdict === "unsure" ? "unsure" : item.verdict ? (differs(item) ? "corrected" : "accepted") : "";
  const later = item.is_later && differs(item) ? "a later run still disagrees" : "";
  tile.setAttribute("aria-label", shown([item.name, describe(item), verdict, later].filter(Boolean).join(", ")));
  tile.setAttribute("aria-selected", selected.has(item.id));
  tile.title = shown(item.uri);
  let stage = tile.querySelector(".stage");
  if (!stage) {
    stage = element("div", { class: "stage" });
    if (item.status === "ok") picture(stage, "thumbnail", item.id, false, "");
    else fill(stage, element("p", { class: "problem" }, shown(describe(item))));
  }
  fill(
    tile, stage,
    element("button", { type: "button", class: "pick", tabIndex: -1, "aria-hidden": "true" }, "✓"),
    verdict ? element("span", { class: `mark ${later ? "later" : item.verdict}`, title: later || verdict }, `${MARKS[item.verdict]} ${later ? "disagrees" : verdict}`) : "",
    element("div", { class: "text" }, element("span", { class: "name" }, element("bdi", {}, shown(item.name))), element("div", { class: "what" }, ...words(item))),
  );
}

function differs(item) {
  const names = item.labels.map((label) => label.name);
  return names.length !== item.model_labels.length || names.some((name) => !item.model_labels.includes(name));
}

// The labels; of a corrected image also those of the model that a person removed.
function words(item) {
  if (item.status !== "ok") return [element("span", { class: "none" }, item.status)];
  const names = item.labels.map((label) => label.name);
  const removed = item.model_labels.filter((name) => !names.includes(name));
  const parts = item.labels.map((label) => element("bdi", {}, element(item.model_labels.includes(label.name) ? "span" : "b", {}, shown(label.name)),
    label.score !== null && label.score !== undefined ? ` ${label.score.toFixed(2)}` : ""));
  parts.push(...removed.map((name) => element("s", {}, shown(name))));
  if (!parts.length) return [element("span", { class: "none" }, "no label")];
  return parts.flatMap((part, place) => (place ? [", ", part] : [part]));
}

// Replace items that were changed, here or by another browser.
export function replace(newItems) {
  for (const item of newItems) {
    const place = items.findIndex((one) => one.id === item.id);
    if (place < 0) continue;
    items[place] = item;
    draw(tiles.get(item.id), item);
  }
}

export function find(id) { return items.findIndex((item) => item.id === id); }

export function focus(place) {
  if (place < 0 || place >= items.length) return;
  tiles.get(items[current]?.id)?.setAttribute("tabindex", "-1");
  current = place;
  const tile = tiles.get(items[place].id);
  tile.setAttribute("tabindex", "0");
  tile.focus({ preventScroll: true });
  tile.scrollIntoView({ block: "nearest" });
  if (place > items.length - 20) more();
}

export function focused() { return items[current]; }

// What an action is about: the selected images, or else the one that the keyboard is at.
export function targets() {
  return selected.size ? [...selected] : document.activeElement?.classList.contains("tile") && items[current] ? [items[current].id] : [];
}

export function clearSelection() {
  selected.clear();
  for (const tile of tiles.values()) tile.setAttribute("aria-selected", "false");
  onSelect();
}

function select(place, isSelected) {
  const item = items[place];
  if (!item || item.status !== "ok") return;
  if (isSelected) selected.add(item.id);
  else selected.delete(item.id);
  tiles.get(item.id).setAttribute("aria-selected", isSelected);
}

function selectTo(place) {
  for (let one = Math.min(anchor, place); one <= Math.max(anchor, place); one += 1) select(one, true);
  onSelect();
}

function toggle(place) {
  anchor = place;
  select(place, !selected.has(items[place].id));
  onSelect();
}

function clicked(event) {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const place = find(Number(tile.dataset.id));
  if (event.shiftKey) selectTo(place);
  else if (event.target.closest(".pick") || event.ctrlKey || event.metaKey) toggle(place);
  else open(place);
  if (!document.querySelector("dialog[open]")) focus(place);
}

function columns() {
  const first = grid.firstElementChild;
  if (!first) return 1;
  return Math.max(1, Math.round((grid.clientWidth + 10) / (first.offsetWidth + 10)));
}

function pressed(event) {
  if (event.altKey || (event.ctrlKey && event.key !== "a") || event.metaKey) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), PageUp: -4 * columns(), PageDown: 4 * columns() };
  const ends = { Home: 0, End: items.length - 1 };
  let place = null;
  if (event.key in steps) place = Math.min(Math.max(current + steps[event.key], 0), items.length - 1);
  else if (event.key in ends) place = ends[event.key];
  else if (event.key === "Enter") open(current);
  else if (event.key === " ") toggle(current);
  else if (event.key === "a" && event.ctrlKey) { items.forEach((_, one) => select(one, true)); onSelect(); }
  else return;
  event.preventDefault();
  if (place === null) return;
  if (event.shiftKey) { if (!selected.size) anchor = current; selectTo(place); }
  focus(place);
}
