// The recommended items as cards, and how the list changes.

import { may } from "./access.js";
import { element, icon, milliseconds, reducedMotion, signed, whole } from "./dom.js";
import { empty, failure, skeleton } from "./states.js";
import { tile } from "./tile.js";

const ACTIONS = { view: "View", cart: "Cart", purchase: "Buy", dislike: "Dislike" };
const SOURCES = {
  generated: "For you",
  partial: "Partly for you",
  popular_in_category: "Popular for you",
  popular: "Popular",
  default: "Shop’s choice",
  pinned: "Pinned",
  boosted: "Boosted",
};
const MOVE_MS = 420;

/** The list; `act` is told an event type and an item, `open` an item. */
export function cardList({ act, open, more }) {
  const heading = element("h2", { id: "list-title" }, "Recommended");
  const facts = element("p", { class: "facts" });
  const list = element("ol", { class: "cards", "aria-labelledby": "list-title" });
  const body = element("div", {}, skeleton("card", 8, "Recommendations"));
  const next = element("button", { type: "button", class: "wide", hidden: true, on: { click: () => more() } }, "More like these");
  const node = element("section", { class: "list", "aria-labelledby": "list-title" },
    element("div", { class: "head" }, heading, facts), body, next);
  let before = null;

  function card(item, best) {
    const chance = element("span", { class: "strength", "aria-hidden": "true" });
    chance.style.setProperty("--share", Math.exp((item.score - best) / 2));
    const shift = change(item);
    const buttons = may("write", "publishable") ? Object.entries(ACTIONS).map(([type, name]) =>
      element("button", { type: "button", data: { type }, "aria-label": `${name}: ${item.title || item.item_id}`, on: { click: () => act(type, item) } }, icon(type), element("span", {}, name))) : [];
    return element("li", { class: "card", data: { item: item.item_id } },
      element("button", { type: "button", class: "cover", "aria-label": `Why ${item.title || item.item_id}?`, on: { click: () => open(item) } },
        tile(item), element("span", { class: "rank" }, String(item.rank)), shift,
        element("span", { class: "why" }, "Why?")),
      element("div", { class: "text" },
        element("p", { class: "small path" }, item.path.slice(-2).join(" › ") || "No category"),
        element("h3", {}, item.title || item.item_id),
        element("p", { class: "source" }, element("span", { class: "badge", data: { source: item.source } }, SOURCES[item.source] ?? item.source),
          chance, element("span", { class: "small number", title: "The bundle’s ranking score" }, signed(item.score)))),
      element("div", { class: "actions" }, buttons));
  }

  function change(item) {
    if (before === null) return null;
    const was = before.get(item.item_id);
    if (was === undefined) return element("span", { class: "shift new" }, "new");
    const up = was - item.rank;
    return up === 0 ? null : element("span", { class: up > 0 ? "shift up" : "shift" }, `${up > 0 ? "▲" : "▼"} ${Math.abs(up)}`);
  }

  function places() {
    return new Map([...list.children].map((each) => [each.dataset.item, each.getBoundingClientRect()]));
  }

  function move(from) {
    if (reducedMotion()) return;
    for (const each of list.children) {
      const was = from.get(each.dataset.item);
      const is = each.getBoundingClientRect();
      const start = was ? { transform: `translate(${was.x - is.x}px, ${was.y - is.y}px)` } : { opacity: 0, transform: "scale(.94)" };
      each.animate([start, { opacity: 1, transform: "none" }], { duration: MOVE_MS, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
  }

  function focused() {
    const held = document.activeElement?.closest?.(".card");
    if (!held || held.parentElement !== list) return null;
    return { item: held.dataset.item, type: document.activeElement.dataset.type, at: [...list.children].indexOf(held) };
  }

  function refocus(held) {
    if (held === null) return;
    const cards = [...list.children];
    const target = cards.find((each) => each.dataset.item === held.item) ?? cards[Math.min(held.at, cards.length - 1)];
    (target?.querySelector(`[data-type="${held.type}"]`) ?? target?.querySelector("button"))?.focus({ preventScroll: true });
  }

  function tellFacts(answer, catalogue) {
    const marks = [];
    if (answer.certified) marks.push(element("span", { class: "proof", title: "No item of the catalogue that was left out would rank higher" }, catalogue ? `Proven best of ${whole(catalogue)}` : "Proven best here"));
    if (answer.degraded?.state_unavailable) marks.push(element("span", { class: "badge weak" }, "Without the visitor’s history"));
    if (answer.variant !== "active") marks.push(element("span", { class: "badge" }, answer.variant));
    facts.replaceChildren(...marks, element("span", { class: "number small" }, milliseconds(answer.took_ms)));
  }

  return {
    node,
    wait() {
      before = null;
      body.replaceChildren(skeleton("card", 8, "Recommendations"));
      next.hidden = true;
    },
    busy: (is) => node.setAttribute("aria-busy", String(is)),
    /** Show an answer; returns how many items are new, null for the first one. */
    tell(answer, title, { catalogue, again }) {
      heading.textContent = title;
      tellFacts(answer, catalogue);
      next.hidden = answer.items.length === 0;
      if (answer.items.length === 0) {
        body.replaceChildren(empty("Nothing left here", "Everything at this place has been seen or excluded. Go up one step, or invent a new visitor."));
        before = null;
        return null;
      }
      const held = focused();
      const from = places();
      list.replaceChildren(...answer.items.map((item) => card(item, answer.items[0].score)));
      if (list.parentElement !== body) body.replaceChildren(list);
      else if (again) move(from);
      refocus(held);
      const fresh = before && answer.items.filter((item) => !before.has(item.item_id)).length;
      before = new Map(answer.items.map((item) => [item.item_id, item.rank]));
      return fresh;
    },
    fail(problem, again) {
      body.replaceChildren(failure(problem, again));
      next.hidden = true;
    },
  };
}
