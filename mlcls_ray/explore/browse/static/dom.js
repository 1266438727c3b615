// Make elements, and say things. Text of strangers only ever becomes text nodes.

// Control characters and marks of direction, which would change how the text around them reads.
const controls = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

export const byId = (id) => document.getElementById(id);

export function shown(text) {
  return String(text).replace(controls, (sign) => "\\u" + sign.charCodeAt(0).toString(16).padStart(4, "0"));
}

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.startsWith("aria")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children);
}

export function option(value, text = value) {
  return element("option", { value }, shown(text));
}

export const count = (number) => number.toLocaleString("en");
export const images = (number) => `${count(number)} ${number === 1 ? "image" : "images"}`;

let silence;

export function say(text, isBad = false) {
  const says = byId("says");
  // A modal dialog hides what lies outside of it.
  (document.querySelector("dialog[open]") || document.body).append(says);
  says.classList.toggle("bad", isBad);
  says.textContent = shown(text);
  clearTimeout(silence);
  silence = setTimeout(() => { says.textContent = ""; }, isBad ? 9000 : 4000);
}

// A picture, or the reason why there is none.
export function picture(stage, path, id, isLarge, alt, onState = () => {}) {
  const image = element("img", { alt, decoding: "async", loading: isLarge ? "eager" : "lazy" });
  image.addEventListener("load", () => { if (image.naturalWidth === 1) ask(); });
  image.addEventListener("error", () => fill(stage, element("p", { class: "problem" }, "the picture could not be loaded")));
  // The numbers of another index name other images: what was cached under them must not be shown.
  image.src = `/${path}/${id}?of=${document.documentElement.dataset.version}`;
  fill(stage, image);
  async function ask() {
    const answer = await fetch(`/api/picture/${id}${isLarge ? "?large" : ""}`);
    const state = answer.ok ? await answer.json() : { problem: "the picture could not be loaded" };
    if (state.problem && image.isConnected) fill(stage, element("p", { class: "problem" }, shown(state.problem)));
    onState(state);
  }
  return ask;
}
