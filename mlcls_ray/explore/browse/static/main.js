// The page: it ties the parts together, takes the keys, and asks every few seconds what others have changed.

import { ask, facts, send, tried } from "./api.js";
import { byId, count, images, say, shown } from "./dom.js";
import * as filters from "./filter.js";
import * as grid from "./grid.js";
import * as viewer from "./viewer.js";

const POLL_MS = 3000;
const WORDS = { accept: "accepted", unsure: "marked as unsure", add: "added", remove: "removed" };
let seen = null;
let isAllSelected = false;
let recounting;

async function act(operation, ids) {
  if (facts.read_only) return say("this page is read-only", true);
  if (!isAllSelected && !ids.length) return say("select an image first", true);
  const body = isAllSelected && !viewer.isOpen() ? { operation, filter: filters.asked() } : { operation, ids };
  const answer = await tried(() => send("correct", body));
  if (answer) done(answer, operation.label ? `${shown(operation.label)} ${WORDS[operation.kind]}` : WORDS[operation.kind]);
  return answer;
}

async function undo() {
  if (byId("undo").disabled) return;
  const answer = await tried(() => send("undo"));
  if (answer) done(answer, "undone");
}

function done(answer, what) {
  say(`${images(answer.count)}: ${what}`);
  byId("undo").disabled = !answer.can_undo;
  if (answer.count > answer.items.length) grid.load();
  else taken(answer.items);
}

function taken(items) {
  grid.replace(items);
  viewer.refresh();
  clearTimeout(recounting);
  recounting = setTimeout(grid.refreshCounts, 250);
}

function drawSelection() {
  const number = isAllSelected ? grid.total : grid.selected.size;
  byId("selection").hidden = !number || facts.read_only;
  byId("selected").textContent = `${count(number)} selected`;
  byId("select-all").hidden = isAllSelected || grid.total <= grid.selected.size;
  byId("select-all").textContent = `Select all ${count(grid.total)}`;
}

function clearSelection() {
  isAllSelected = false;
  grid.clearSelection();
}

async function poll() {
  if (document.hidden) return;
  try {
    const state = await ask("state", { since: seen ?? 0 });
    byId("undo").disabled = !state.can_undo || facts.read_only;
    byId("outdated").hidden = !state.is_outdated;
    const isNews = seen !== null && state.place > seen;
    seen = state.place;
    if (!isNews) return;
    if (!state.is_all) return grid.load();
    const ours = state.ids.filter((id) => grid.find(id) >= 0).slice(0, 200);
    if (ours.length) taken((await ask("items", { ids: ours.join(",") })).items);
    else grid.refreshCounts();
  } catch { /* the server has gone: the next action says so */ }
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const isTyping = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && !viewer.isOpen()) { isTyping ? event.target.blur() : clearSelection(); return; }
  if (isTyping) return;
  const isSlider = event.target.matches("input[type=range]");
  const keys = {
    "/": () => !viewer.isOpen() && byId("text").focus(),
    "?": () => byId("help").showModal(),
    a: () => act({ kind: "accept" }, targets()),
    u: () => act({ kind: "unsure" }, targets()),
    z: undo,
    "+": () => byId(viewer.isOpen() ? "one-label" : "many-label").focus(),
    ArrowLeft: viewer.isOpen() && !isSlider ? () => viewer.step(-1) : null,
    ArrowRight: viewer.isOpen() && !isSlider ? () => viewer.step(1) : null,
  };
  const number = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
  const run = number >= 0 ? () => byNumber(number) : keys[event.key];
  if (!run) return;
  event.preventDefault();
  run();
}

const targets = () => (viewer.isOpen() ? [viewer.image.id] : grid.targets());

// In the large view the numbers are those of its scores; else those of the labels at the left, for the selected images.
function byNumber(number) {
  if (viewer.isOpen()) return viewer.toggle(number);
  const label = filters.listedLabels()[number];
  const ids = grid.targets();
  if (!label || !ids.length) return;
  const chosen = grid.items.filter((item) => ids.includes(item.id));
  const haveIt = chosen.every((item) => item.labels.some((one) => one.name === label));
  act({ kind: haveIt ? "remove" : "add", label }, ids);
}

function manyLabel(kind) {
  const label = byId("many-label").value.trim();
  if (!label) { byId("many-label").focus(); return say("type a label first", true); }
  byId("many-label").value = "";
  return act({ kind, label }, grid.targets());
}

function start() {
  grid.start(viewer.open, () => { if (!grid.selected.size) isAllSelected = false; drawSelection(); });
  viewer.start(act);
  filters.start(() => grid.load());
  for (const button of byId("selection").querySelectorAll("[data-do]")) {
    const kind = button.dataset.do;
    button.addEventListener("click", () => (["add", "remove"].includes(kind) ? manyLabel(kind) : act({ kind }, grid.targets())));
  }
  byId("many-label").addEventListener("keydown", (event) => { if (event.key === "Enter") manyLabel("add"); });
  byId("select-all").addEventListener("click", () => { isAllSelected = true; drawSelection(); });
  byId("clear-selection").addEventListener("click", clearSelection);
  byId("undo").addEventListener("click", undo);
  byId("undo").hidden = facts.read_only;
  byId("show-filters").addEventListener("click", () => {
    const isOpen = byId("filters").classList.toggle("open");
    byId("show-filters").setAttribute("aria-expanded", isOpen);
  });
  byId("show-help").addEventListener("click", () => byId("help").showModal());
  byId("close-help").addEventListener("click", () => byId("help").close());
  byId("rebuild").addEventListener("click", async () => { say("reading the new run …"); if (await tried(() => send("rebuild"))) location.reload(); });
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", poll);
  grid.load();
  poll();
  setInterval(poll, POLL_MS);
}

start();
