// Talk to the server. What it knows from the start stands in the page.

import { byId, say } from "./dom.js";

export const facts = JSON.parse(byId("facts").textContent);

async function answered(response) {
  const content = await response.json();
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}`);
  if (content.version !== facts.version) location.reload();
  return content;
}

export async function ask(name, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters);
  return answered(await fetch(`/api/${name}?${query}`, { signal }));
}

export async function send(name, body = {}) {
  return answered(await fetch(`/api/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ version: facts.version, ...body }),
  }));
}

// Run something that may fail, and say why it did. Newer requests abort older ones; that is no failure.
export async function tried(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message === "Failed to fetch" ? "the server does not answer: is it still running?" : error.message, true);
    return null;
  }
}
