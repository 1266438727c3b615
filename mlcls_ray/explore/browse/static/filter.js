// The filter: its state, which is kept in the address so that a reload and a bookmark show the same, and its controls.

import { facts } from "./api.js";
import { byId, count, element, fill, option, shown } from "./dom.js";

const EMPTY = {
  any: [], all: [], none: [], scores: [], status: null, run: null, text: "", near: null, label: null, differ: null,
  reviewed: null, alike: null, sort: "name",
};
const SORTS = {
  name: "name", newest: "newest first", score: "highest score", "low score": "lowest score", unsure: "nearest to a threshold",
  corrected: "corrected last", alike: "most similar",
};
const REVIEWED = {
  none: "not looked at", any: "accepted, corrected or unsure", accepted: "accepted as they were", changed: "corrected",
  unsure: "unsure", disagrees: "the model disagrees", later: "a later run still disagrees",
};
const MAX_LABELS = 300;

export let filter = read();
let changed = () => {};
let counts = { labels: {}, statuses: {} };

function read() {
  try {
    const kept = JSON.parse(decodeURIComponent(location.hash.slice(1) || "{}"));
    return Object.fromEntries(Object.keys(EMPTY).map((key) => [key, key in kept ? kept[key] : EMPTY[key]]));
  } catch {
    return { ...EMPTY };
  }
}

// The parts that differ from the empty filter: what the server is asked, and what stands in the address.
export function asked() {
  return Object.fromEntries(Object.entries(filter).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(EMPTY[key])));
}

export function change(parts) {
  filter = { ...filter, ...parts };
  if (filter.alike === null && filter.sort === "alike") filter.sort = "name";
  const text = JSON.stringify(asked());
  history.replaceState(null, "", text === "{}" ? location.pathname : `#${encodeURIComponent(text)}`);
  draw();
  changed();
}

export function start(onChange) {
  changed = onChange;
  fill(byId("class"), option("", "all classes"), ...facts.labels.map((label) => option(label)));
  fill(byId("run"), option("", "all runs"), ...facts.runs.map((run) => option(run.id, `${run.id} ${run.model}`)));
  fill(byId("reviewed"), option("", "all images"), ...Object.entries(REVIEWED).map(([value, text]) => option(value, text)));
  const sides = [...facts.runs.map((run) => option(run.id, `${run.id} ${run.model}`)), ...facts.others.map((other) => option(other))];
  byId("differ").hidden = sides.length < 2;
  for (const id of ["first", "second"]) fill(byId(id), option("", "–"), ...sides.map((side) => side.cloneNode(true)));
  fill(byId("label-names"), ...facts.labels.map((label) => option(label)));
  listen();
  draw();
}

function listen() {
  let typing;
  byId("text").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ text: event.target.value }), 200);
  });
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  byId("find-label").addEventListener("input", drawLabels);
  byId("match").addEventListener("change", () => {
    const chosen = [...filter.any, ...filter.all];
    change(byId("match").value === "all" ? { all: chosen, any: [] } : { any: chosen, all: [] });
  });
  for (const id of ["status", "run", "reviewed"]) byId(id).addEventListener("change", (event) => change({ [id]: event.target.value || null }));
  byId("class").addEventListener("change", (event) => change({ label: event.target.value || null }));
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  byId("near").addEventListener("change", (event) => change({ near: Number(event.target.value) || null }));
  byId("near").addEventListener("input", (event) => { byId("near-value").textContent = Number(event.target.value) ? `±${event.target.value}` : "off"; });
  byId("add-range").addEventListener("click", () => {
    const range = { label: filter.label, low: Number(byId("low").value), high: Number(byId("high").value) };
    change({ scores: [...filter.scores.filter((one) => one.label !== range.label), range] });
  });
  for (const id of ["first", "second"]) byId(id).addEventListener("change", () => {
    const [first, second] = [byId("first").value, byId("second").value];
    change({ differ: first && second && first !== second ? [first, second] : null });
  });
}

export function showCounts(newCounts) {
  counts = newCounts;
  drawLabels();
  drawStatuses();
}

function draw() {
  if (document.activeElement !== byId("text")) byId("text").value = filter.text;
  fill(byId("sort"), ...Object.keys(SORTS).filter((sort) => sort !== "alike" || filter.alike !== null).map((sort) => option(sort, SORTS[sort])));
  byId("sort").value = filter.sort;
  byId("match").value = filter.all.length ? "all" : byId("match").value;
  byId("class").value = filter.label || "";
  byId("run").value = filter.run || "";
  byId("reviewed").value = filter.reviewed || "";
  byId("near").value = filter.near || 0;
  byId("near-value").textContent = filter.near ? `±${filter.near}` : "off";
  byId("add-range").disabled = !filter.label;
  byId("add-range").title = filter.label ? "" : "Choose a class first";
  if (filter.differ) [byId("first").value, byId("second").value] = filter.differ;
  drawLabels();
  drawStatuses();
  drawChips();
}

function drawStatuses() {
  const statuses = new Set([...Object.keys(counts.statuses), ...(filter.status ? [filter.status] : [])]);
  statuses.delete("not ok");
  const text = (status) => (counts.statuses[status] ? `${status} (${count(counts.statuses[status])})` : status);
  fill(byId("status"), option("", "all"), option("not ok", "not labeled"), ...[...statuses].map((status) => option(status, text(status))));
  byId("status").value = filter.status || "";
}

// The labels of the images that are shown, most frequent first; the first nine have a key.
export function listedLabels() {
  const chosen = [...filter.any, ...filter.all, ...filter.none];
  const names = [...new Set([...chosen, ...Object.keys(counts.labels)])];
  const text = byId("find-label").value.trim().toLowerCase();
  if (text) return [...new Set([...names, ...facts.labels])].filter((name) => name.toLowerCase().includes(text));
  return names;
}

function drawLabels() {
  const chosen = new Set([...filter.any, ...filter.all]);
  const excluded = new Set(filter.none);
  const focused = document.activeElement?.dataset?.key;
  fill(byId("label-list"), ...listedLabels().slice(0, MAX_LABELS).map((name, place) => element(
    "li", {},
    element(
      "button", { type: "button", "aria-pressed": chosen.has(name), "data-key": `+${name}`, onclick: () => toggle(name, chosen) },
      ...(place < 9 ? [element("kbd", { "aria-hidden": "true" }, String(place + 1))] : []),
      element("span", { class: "name" }, element("bdi", {}, shown(name))),
      element("span", { class: "number" }, count(counts.labels[name] || 0)),
    ),
    element("button", {
      type: "button", class: "not", "aria-pressed": excluded.has(name), "aria-label": `without ${shown(name)}`, title: `without ${shown(name)}`,
      "data-key": `-${name}`, onclick: () => change({ none: excluded.has(name) ? filter.none.filter((one) => one !== name) : [...filter.none, name] }),
    }, "−"),
  )));
  if (focused) [...byId("label-list").querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

function toggle(name, chosen) {
  const key = byId("match").value;
  const names = chosen.has(name) ? [...chosen].filter((one) => one !== name) : [...chosen, name];
  change({ any: [], all: [], [key]: names });
}

function drawChips() {
  const chips = [];
  const chip = (text, parts) => chips.push(element("li", {}, element(
    "button", { type: "button", "aria-label": `remove the filter ${shown(text)}`, onclick: () => change(parts) }, element("bdi", {}, shown(text)), " ×",
  )));
  for (const key of ["any", "all", "none"]) {
    for (const name of filter[key]) chip(key === "none" ? `without ${name}` : name, { [key]: filter[key].filter((one) => one !== name) });
  }
  for (const range of filter.scores) {
    chip(`${range.label} ${range.low}–${range.high}`, { scores: filter.scores.filter((one) => one !== range) });
  }
  if (filter.text) chip(`name: ${filter.text}`, { text: "" });
  if (filter.status) chip(`status: ${filter.status}`, { status: null });
  if (filter.run) chip(`run ${filter.run}`, { run: null });
  if (filter.near) chip(`±${filter.near} of the threshold${filter.label ? ` of ${filter.label}` : ""}`, { near: null });
  if (filter.reviewed) chip(REVIEWED[filter.reviewed], { reviewed: null });
  if (filter.differ) chip(`${filter.differ[0]} ≠ ${filter.differ[1]}`, { differ: null });
  if (filter.alike !== null) chip("similar images", { alike: null });
  if (chips.length > 1) {
    chips.push(element("li", {}, element("button", { type: "button", onclick: () => change({ ...EMPTY, sort: filter.sort }) }, "Clear all")));
  }
  fill(byId("chips"), ...chips);
}
