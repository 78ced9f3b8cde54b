// The codebook tree as a picture: a treemap of two levels, which zooms into what is chosen.

import { api } from "./api.js";
import { drawing, element, whole } from "./dom.js";
import { failure, skeleton } from "./states.js";
import { hueOf, spreadHues } from "./tile.js";
import { squarified } from "./treemap.js";

const HEIGHT = 520;
const HEAD = 24;
const PLACES_MAX = 60;
const AT_ONCE = 6;
const LETTER = 7.2;

export function treePanel({ open }) {
  const crumbs = element("nav", { class: "crumbs", "aria-label": "Place in the tree" });
  const note = element("p", { class: "small" });
  const body = element("div", { class: "treemap" }, skeleton("picture", 1, "Tree"));
  const node = element("section", { class: "panel tree", "aria-labelledby": "tree-title" },
    element("div", { class: "head" }, element("h2", { id: "tree-title" }, "The codebook tree"), note), crumbs, body);
  let asked = 0;

  async function go(path, { focus = false } = {}) {
    const turn = ++asked;
    tellCrumbs(path);
    try {
      const here = await api.taxonomy(path);
      if (path.length === 0) spreadHues(here.choices.map((each) => each.name));
      const places = largest(here.choices);
      const inner = await Promise.all(limited(places, (each) => (each.kind === "item" ? [] : api.taxonomy(each.path).then((found) => largest(found.choices)))));
      if (turn !== asked) return;
      draw(here, places, inner);
      if (focus) body.querySelector("[tabindex]")?.focus();
    } catch (problem) {
      if (turn === asked) body.replaceChildren(failure(problem, () => go(path)));
    }
  }

  function tellCrumbs(path) {
    const steps = ["Everything", ...path];
    crumbs.replaceChildren(element("ol", {}, steps.map((name, depth) => element("li", {}, depth === steps.length - 1
      ? element("span", { "aria-current": "location" }, name)
      : element("button", { type: "button", on: { click: () => go(path.slice(0, depth), { focus: true }) } }, name)))));
  }

  function draw(here, places, inner) {
    const width = Math.max(300, body.clientWidth);
    const left = here.choices.length - places.length;
    note.textContent = `${whole(here.items_here)} items${left > 0 ? `; the ${places.length} largest of ${here.choices.length} places` : ""}`;
    const boxes = squarified(places.map((each) => each.items), { x: 0, y: 0, width, height: HEIGHT });
    body.replaceChildren(drawing("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": "Places by number of items" },
      places.map((place, at) => cell(place, boxes[at], inner[at], at))));
  }

  function cell(place, { x, y, width, height }, inner, at) {
    const hue = hueOf(place.path);
    const isItem = place.kind === "item";
    const choose = () => (isItem ? open(place.item_id) : go(place.path, { focus: true }));
    const onKey = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    };
    const head = height > HEAD * 2 && width > 40 ? HEAD : 0;
    const within = { x: x + 3, y: y + head, width: Math.max(0, width - 6), height: Math.max(0, height - head - 3) };
    const small = inner.length && width > 24 && height > 24 ? squarified(inner.map((each) => each.items), within) : [];
    const fill = (depth) => `hsl(${hue + (at % 5) * 3} ${depth ? 46 : 40}% ${depth ? 68 + ((depth * 5) % 13) : 33}%)`;
    return drawing("g", { class: "place", tabindex: "0", role: "button", "aria-label": `${place.name}, ${isItem ? "item" : `${whole(place.items)} items`}`, on: { click: choose, keydown: onKey } },
      drawing("rect", { x: x + 1, y: y + 1, width: Math.max(0, width - 2), height: Math.max(0, height - 2), rx: 5, fill: fill(0), class: "outer" }),
      small.map((box, depth) => drawing("rect", { x: box.x + 0.5, y: box.y + 0.5, width: Math.max(0, box.width - 1), height: Math.max(0, box.height - 1), rx: 2.5, fill: fill(depth + 1), class: "inner" })),
      small.map((box, depth) => label(inner[depth].name, { x: box.x + 6, y: box.y + 16 }, box, "tiny")),
      head ? label(place.name, { x: x + 9, y: y + 17 }, { width: width - 8, height: HEAD }, "large") : null,
      drawing("title", {}, `${place.name}: ${whole(place.items)} items`));
  }

  return { node, begin: () => go([]) };
}

/** A name as far as it fits, or nothing. */
function label(name, { x, y }, { width, height }, kind) {
  const letters = Math.floor((width - 10) / LETTER);
  if (letters < 4 || height < 20) return null;
  return drawing("text", { x, y, class: kind }, name.length > letters ? `${name.slice(0, letters - 1)}…` : name);
}

const largest = (choices) => [...choices].sort((a, b) => b.items - a.items).slice(0, PLACES_MAX);

/** Promises of `work` on each place, a few at once. */
function limited(places, work) {
  const lanes = Array(AT_ONCE).fill(Promise.resolve());
  return places.map((place, at) => (lanes[at % AT_ONCE] = lanes[at % AT_ONCE].then(() => work(place))));
}
