// Thresholds that are tried out: what they would change, and saving them for `mlcls relabel`. They stay while the tab is open.

import { ask, facts, send, tried } from "./api.js";
import { byId, count, element, fill, images, picture, say, shown } from "./dom.js";

const KEY = `mlcls thresholds ${facts.out}`;
export const moved = new Map(Object.entries(JSON.parse(sessionStorage.getItem(KEY) || "{}")));
let asking = null;
let waiting;
let openImage = () => {};
let redraw = () => {};

export function start(open, onReset) {
  openImage = open;
  redraw = onReset;
  byId("save-thresholds").addEventListener("click", save);
  byId("save-thresholds").hidden = facts.read_only;
  byId("download-thresholds").addEventListener("click", download);
  byId("reset-thresholds").addEventListener("click", () => {
    moved.clear();
    keep();
    byId("preview").hidden = true;
    redraw();
  });
}

export function move(label, before, value) {
  if (value === Number(before.toFixed(2))) moved.delete(label);
  else moved.set(label, value);
  keep();
  clearTimeout(waiting);
  waiting = setTimeout(() => preview(label, before, value), 90);
}

function keep() {
  sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(moved)));
  byId("save-thresholds").textContent = `Save ${moved.size} ${moved.size === 1 ? "threshold" : "thresholds"}`;
  for (const id of ["save-thresholds", "download-thresholds"]) byId(id).disabled = !moved.size;
  byId("saved").textContent = "";
}

async function preview(label, before, value) {
  asking?.abort();
  asking = new AbortController();
  const signal = asking.signal;
  const answer = await tried(() => ask("threshold", { label, value }, signal));
  if (!answer) return;
  byId("preview").hidden = false;
  byId("preview-heading").textContent = `${shown(label)} above ${value.toFixed(2)} instead of ${before.toFixed(2)}`;
  byId("preview-text").textContent = `${images(answer.after)} instead of ${count(answer.before)}: ${count(answer.gained_count)} gain the label, ${count(answer.lost_count)} lose it.`;
  fill(byId("preview-pictures"), ...strip("Would gain it", answer.gained), ...strip("Would lose it", answer.lost));
}

function strip(heading, items) {
  if (!items.length) return [];
  const pictures = items.map((item) => {
    const button = element("button", { type: "button", "aria-label": shown(item.name), title: shown(item.uri), onclick: () => openImage(item.id) });
    picture(button, "thumbnail", item.id, false, "");
    return button;
  });
  return [element("p", { class: "note" }, heading), element("div", { class: "strip" }, ...pictures)];
}

async function save() {
  const answer = await tried(() => send("thresholds", { classes: Object.fromEntries(moved), save: true }));
  if (!answer) return;
  fill(byId("saved"), `Saved as ${answer.path}. To apply them:`, element("code", {}, answer.command));
}

async function download() {
  const answer = await tried(() => send("thresholds", { classes: Object.fromEntries(moved) }));
  if (!answer) return;
  const url = URL.createObjectURL(new Blob([answer.text], { type: "application/yaml" }));
  element("a", { href: url, download: "thresholds.yaml" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  say("thresholds.yaml: give it to mlcls relabel --threshold");
}

keep();
