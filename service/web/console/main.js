// Puts the pages together: which one is shown, whether the service is there, and the key.

import { keyPage, learnAccess, usesKeys } from "./access.js";
import { api, credentials } from "./api.js";
import { element } from "./dom.js";
import { operatorPage } from "./operator.js";
import { shopPage } from "./shop.js";
import { failure } from "./states.js";

const WATCH_MS = 3000;
const content = document.getElementById("content");
const pages = { shop: { title: "Shop", make: shopPage }, operator: { title: "Operator", make: operatorPage } };
let shown = null;
let isAway = false;

function address() {
  const [, name = "shop", asked = ""] = /^#\/(\w+)(?:\?(.*))?$/.exec(location.hash) ?? [];
  return { name: name in pages ? name : "shop", asked: new URLSearchParams(asked) };
}

function show({ moveFocus = false } = {}) {
  const { name, asked } = address();
  shown?.leave?.();
  shown = pages[name].make(asked);
  document.title = `${pages[name].title} · Cofine`;
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  content.replaceChildren(shown.node);
  if (moveFocus) content.focus({ preventScroll: false });
}

async function begin() {
  try {
    await learnAccess();
  } catch (problem) {
    if (!problem.needsKey) {
      content.replaceChildren(failure(problem, begin));
      shown = null;
    }
    return;
  }
  const button = document.getElementById("key");
  button.hidden = !usesKeys();
  button.textContent = "Forget key";
  show();
}

function askForKey() {
  shown?.leave?.();
  shown = null;
  document.getElementById("key").hidden = true;
  if (content.querySelector(".key-page")) return;
  content.replaceChildren(keyPage(begin));
  content.querySelector("input").focus();
}

function tellHealth(state, text) {
  const health = document.getElementById("health");
  health.dataset.state = state;
  if (health.lastElementChild.textContent !== text) health.lastElementChild.textContent = text;
}

function tellOutage(...words) {
  const outage = document.getElementById("outage");
  if (outage.textContent === words.join("")) return;
  outage.replaceChildren(...(words.length ? [element("p", {}, element("b", {}, words[0]), words[1])] : []));
}

async function watch() {
  try {
    const { state } = await api.ready();
    if (state.available) {
      tellHealth("good", "Ready");
      tellOutage();
    } else {
      tellHealth("weak", "Without visitors’ state");
      tellOutage("The state store is away. ", "Recommendations go on without what visitors did; events are refused until it is back.");
    }
    if (isAway) {
      isAway = false;
      if (shown === null && !content.querySelector(".key-page")) begin();
      else shown?.refresh?.();
    }
  } catch (problem) {
    if (problem.status !== 0 && problem.status !== 503) throw problem;
    isAway = true;
    tellHealth("bad", "Unreachable");
    tellOutage("The service does not answer. ", "What you see is from before. This page looks again every few seconds.");
  } finally {
    setTimeout(watch, WATCH_MS);
  }
}

addEventListener("hashchange", () => shown && show({ moveFocus: true }));
addEventListener("key-needed", askForKey);
document.getElementById("key").addEventListener("click", () => {
  credentials.set({});
  askForKey();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});
await begin();
watch();
