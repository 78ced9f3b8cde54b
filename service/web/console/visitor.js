// Who is looked at: the name, what is stored of them, and how to become somebody else.

import { may, onlyUser } from "./access.js";
import { api } from "./api.js";
import { element, icon, tell } from "./dom.js";
import { empty, skeleton } from "./states.js";
import { tile } from "./tile.js";

const VISITOR = "cofine.visitor";
const RECENT = "cofine.recent-visitors";
const RECENT_MAX = 8;
const HISTORY_SHOWN = 12;
const NAMES = ["Ada", "Bela", "Chidi", "Dana", "Emeka", "Freya", "Goro", "Hana", "Ines", "Juno", "Kofi", "Lena", "Mira", "Noor", "Omar", "Pia", "Rosa", "Sami", "Tove", "Uma", "Vito", "Wanda", "Yuki", "Zoe"];
const DONE = { view: "viewed", cart: "in the cart", purchase: "bought", dislike: "not liked" };

const recent = () => JSON.parse(localStorage.getItem(RECENT) ?? "[]");

export function currentVisitor() {
  return onlyUser() ?? localStorage.getItem(VISITOR) ?? switchVisitor(inventedName());
}

export function switchVisitor(name) {
  localStorage.setItem(VISITOR, name);
  localStorage.setItem(RECENT, JSON.stringify([name, ...recent().filter((each) => each !== name)].slice(0, RECENT_MAX)));
  return name;
}

export function inventedName() {
  const [first, second] = crypto.getRandomValues(new Uint16Array(2));
  return `${NAMES[first % NAMES.length]}-${String(second % 1000).padStart(3, "0")}`;
}

const items = new Map();

/** Title, path and codes of an item by its id, asked once; the id alone where it is not known. */
export async function described(id) {
  if (!items.has(id)) items.set(id, api.item(id).catch(() => ({ item_id: id, title: "", path: [], semantic_id: [] })));
  return items.get(id);
}

/** So that what was shown already need not be asked for again. */
export function remember(shown) {
  for (const item of shown) items.set(item.item_id, item);
}

/** The panel about the visitor: `changed` is told a new name, `taste` a category to begin with. */
export function visitorPanel({ changed, erased }) {
  const field = element("input", { id: "visitor-field", list: "recent-visitors", maxlength: 256, autocomplete: "off", spellcheck: "false" });
  const heading = element("h1", {});
  const face = element("span", { class: "face", "aria-hidden": "true" });
  const names = element("datalist", { id: "recent-visitors" });
  const become = (event) => {
    event.preventDefault();
    const name = field.value.trim();
    if (name) changed(switchVisitor(name));
  };
  const erase = async () => {
    try {
      await api.erase(currentVisitor());
      erased();
    } catch (problem) {
      tell(problem.words.join(". "), { problem: true, again: erase });
    }
  };
  const forms = onlyUser() ? [element("p", { class: "small" }, "The key acts for this visitor only.")] : [
    element("form", { class: "row", on: { submit: become } },
      element("label", { class: "unseen", for: "visitor-field" }, "Another visitor’s name"), field, names,
      element("button", { type: "submit" }, "Switch")),
    element("button", { class: "quiet wide", type: "button", id: "invent", on: { click: () => changed(switchVisitor(inventedName())) } }, "Invent a new visitor"),
  ];
  const history = element("div", { class: "history" });
  const forget = element("button", { class: "quiet danger", type: "button", hidden: true, on: { click: erase } }, "Forget all");
  const node = element("aside", { class: "panel visitor", "aria-label": "Visitor" },
    element("div", { class: "who" }, face, element("div", {}, element("p", { class: "over" }, "Shopping as"), heading)),
    forms,
    element("div", { class: "head" }, element("h2", {}, "What they did"), forget),
    history);

  return {
    node,
    name() {
      const name = currentVisitor();
      heading.textContent = name;
      face.textContent = name.slice(0, 1).toUpperCase();
      field.value = "";
      field.placeholder = "Another name";
      names.replaceChildren(...recent().map((each) => element("option", { value: each })));
    },
    wait: () => history.replaceChildren(skeleton("line", 4, "What they did")),
    /** Entries newest first; each has item_id, type and timestamp. */
    async tell(entries, disliked, tastes) {
      forget.hidden = !may("write") || (entries.length === 0 && disliked.length === 0);
      if (entries.length === 0 && disliked.length === 0) {
        history.replaceChildren(empty("Nothing yet", "A new visitor sees what is popular. Act on an item, and the list follows", ...tastes));
        return;
      }
      const newest = entries.slice(0, HISTORY_SHOWN);
      const known = await Promise.all([...newest.map((each) => described(each.item_id)), ...disliked.map(described)]);
      const rows = newest.map((each, at) => row(known[at], each.type, each.timestamp));
      const left = entries.length - newest.length;
      const unloved = disliked.map((_, at) => row(known[newest.length + at], "dislike", null));
      history.replaceChildren(element("ol", { class: "events", tabindex: "0", "aria-label": "What they did, newest first" }, rows, unloved),
        ...(left > 0 ? [element("p", { class: "small" }, `and ${left} earlier`)] : []));
    },
    fail: (view) => history.replaceChildren(view),
  };
}

function row(item, type, timestamp) {
  const known = item.semantic_id.length > 0;
  const done = DONE[type] ?? type;
  return element("li", { data: { type } },
    known ? tile(item) : element("span", { class: "tile blank" }),
    element("div", {}, element("p", { class: "title" }, item.title || item.item_id),
      element("p", { class: "small" }, icon(type), `${done}${timestamp ? `, ${ago(timestamp)}` : ""}`)));
}

function ago(timestamp) {
  const seconds = Math.max(0, Date.now() / 1000 - timestamp);
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= size) return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / size), unit);
  }
  return "just now";
}
