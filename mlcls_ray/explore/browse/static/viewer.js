// One image, large: its labels, the scores of all classes, and the thresholds as lines that can be dragged.

import { ask, facts, tried } from "./api.js";
import { byId, element, fill, picture, shown } from "./dom.js";
import { change } from "./filter.js";
import * as grid from "./grid.js";
import * as thresholds from "./thresholds.js";

const FIRST = 12;
const dialog = byId("viewer");
export let image = null;
let place = -1;
let asked = 0;
let act = () => {};

export function start(onAction) {
  act = onAction;
  thresholds.start((id) => show(id), drawClasses);
  byId("close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("accept").addEventListener("click", () => act({ kind: "accept" }, [image.id]));
  byId("unsure").addEventListener("click", () => act({ kind: "unsure" }, [image.id]));
  byId("one-label").addEventListener("change", addTyped);
  byId("similar").addEventListener("click", () => { const id = image.id; dialog.close(); change({ alike: id, sort: "alike" }); });
  byId("all-classes").addEventListener("click", () => {
    byId("all-classes").setAttribute("aria-pressed", byId("all-classes").getAttribute("aria-pressed") !== "true");
    drawClasses();
  });
  dialog.addEventListener("close", () => { asked += 1; if (place >= 0) grid.focus(place); image = null; });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  byId("correct").hidden = facts.read_only && !facts.alike;
  for (const id of ["accept", "unsure", "one-label"]) byId(id).hidden = facts.read_only;
}

export const isOpen = () => dialog.open;

export function open(newPlace) {
  place = newPlace;
  show(grid.items[place].id);
}

export async function step(by) {
  const newPlace = place + by;
  if (newPlace >= grid.items.length) await grid.more();
  if (newPlace < 0 || newPlace >= grid.items.length) return;
  open(newPlace);
}

// Only the newest question counts: one may have stepped on, or closed the view, before an answer comes.
async function show(id) {
  asked += 1;
  const mine = asked;
  const answer = await tried(() => ask("image", { id }));
  if (!answer || mine !== asked) return;
  const isNew = image?.id !== answer.image.id;
  image = answer.image;
  const known = grid.find(id);
  if (known >= 0) place = known;
  if (!dialog.open) dialog.showModal();
  if (isNew) drawPicture();
  draw();
  if (isNew) byId("viewer-name").focus();
}

// What was changed elsewhere, or by an action.
export async function refresh() {
  if (image) await show(image.id);
}

function drawPicture() {
  const stage = dialog.querySelector(".stage");
  byId("changed").hidden = true;
  if (image.status !== "ok") {
    fill(stage, element("p", { class: "problem" }, shown(`${image.status}: ${image.problem}`)));
    return;
  }
  const about = image.id;
  const state = picture(stage, "picture", about, true, shown(`${image.name}: ${grid.describe(image)}`), (known) => {
    if (image?.id === about) byId("changed").hidden = !known.is_changed;
  });
  stage.querySelector("img").addEventListener("load", (event) => { if (event.target.naturalWidth > 1) state(); });
}

function draw() {
  fill(byId("viewer-name"), element("bdi", {}, shown(image.name)));
  fill(byId("viewer-uri"), element("bdi", {}, shown(image.uri)));
  const size = image.width ? `${image.width} × ${image.height} ${image.format || ""}` : "";
  byId("viewer-facts").textContent = [size, `run ${image.run}`, image.labeled_at].filter(Boolean).join(" · ");
  const verdicts = { labeled: "Looked at", unsure: "Unsure" };
  byId("viewer-verdict").textContent = image.verdict ? `${verdicts[image.verdict]} by ${image.by}${image.is_later ? "; this run is later" : ""}` : "Not looked at yet";
  byId("similar").hidden = !image.has_embedding;
  for (const id of ["accept", "unsure", "one-label"]) byId(id).disabled = image.status !== "ok";
  drawLabels();
  drawClasses();
}

function drawLabels() {
  const names = image.labels.map((label) => label.name);
  const chips = image.labels.map((label) => chip(label.name, image.model_labels.includes(label.name) ? "" : "added", "remove"));
  chips.push(...image.model_labels.filter((name) => !names.includes(name)).map((name) => chip(name, "removed", "add")));
  fill(byId("viewer-labels"), ...(chips.length ? chips : [element("li", { class: "note" }, image.status === "ok" ? "No label" : "")]));
}

function chip(name, kind, action) {
  const verb = action === "remove" ? "remove" : "put back";
  return element("li", {}, element(
    "button", { type: "button", class: kind, disabled: facts.read_only, title: `${verb} ${shown(name)}`, "aria-label": `${verb} ${shown(name)}`, onclick: () => act({ kind: action, label: name }, [image.id]) },
    element("bdi", {}, shown(name)), action === "remove" ? " ×" : " +",
  ));
}

function addTyped(event) {
  const label = event.target.value.trim();
  if (!label) return;
  event.target.value = "";
  act({ kind: "add", label }, [image.id]);
}

export function listed() {
  return byId("all-classes").getAttribute("aria-pressed") === "true" ? image.classes : image.classes.slice(0, FIRST);
}

// Add or remove the class with this number in the list.
export function toggle(number) {
  const entry = listed()[number];
  if (entry) act({ kind: has(entry.label) ? "remove" : "add", label: entry.label }, [image.id]);
}

const has = (name) => image.labels.some((label) => label.name === name);

function drawClasses() {
  if (!image) return;
  const focused = document.activeElement?.dataset?.key;
  byId("all-classes").hidden = image.classes.length <= FIRST;
  byId("all-classes").textContent = `All ${image.classes.length} classes`;
  fill(byId("classes"), ...listed().map((entry, number) => line(entry, number)));
  if (!image.classes.length) fill(byId("classes"), element("li", { class: "note" }, "Scores were not kept"));
  if (focused) [...byId("classes").querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}

function line(entry, number) {
  const name = shown(entry.label);
  const value = thresholds.moved.get(entry.label) ?? entry.threshold;
  const limit = element("span", { class: "limit", title: "threshold" }, value.toFixed(2));
  const slider = element("input", {
    type: "range", min: "0", max: "1", step: "0.01", value: value.toFixed(2), "aria-label": `threshold of ${name}`, "data-key": `t${entry.label}`,
    oninput: (event) => {
      const moved = Number(event.target.value);
      limit.textContent = moved.toFixed(2);
      thresholds.move(entry.label, entry.threshold, moved);
      row.classList.toggle("moved", thresholds.moved.has(entry.label));
    },
  });
  const score = element("div", { class: "score" });
  score.style.width = `${100 * entry.score}%`;
  const row = element(
    "li", { class: thresholds.moved.has(entry.label) ? "moved" : "" },
    number < 9 ? element("kbd", { "aria-hidden": "true" }, String(number + 1)) : element("span"),
    element("button", {
      type: "button", disabled: facts.read_only || image.status !== "ok", "aria-pressed": has(entry.label), title: name, "data-key": `c${entry.label}`,
      onclick: () => toggle(number),
    }, element("bdi", {}, name)),
    element("div", { class: "track" }, score, slider),
    element("span", { title: "score" }, entry.score.toFixed(2)),
    limit,
  );
  return row;
}
