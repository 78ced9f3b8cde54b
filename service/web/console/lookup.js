// An item's codes and neighbours.

import { may } from "./access.js";
import { api } from "./api.js";
import { element } from "./dom.js";
import { empty, failure, skeleton } from "./states.js";
import { hueOf, tile } from "./tile.js";

const NEIGHBOURS = 8;

/** The panel; `levels` of the bundle in service, as /v1/info tells them. */
export function lookupPanel(levels, first) {
  const field = element("input", { id: "item-field", value: first ?? "", maxlength: 256, autocomplete: "off", spellcheck: "false", required: true });
  const result = element("div", { "aria-live": "polite" }, empty("Which item?", "Enter an item id, or choose one in the tree or in the shop."));
  const node = element("section", { class: "panel lookup", "aria-labelledby": "lookup-title" },
    element("h2", { id: "lookup-title" }, "An item’s codes and neighbours"),
    element("form", { class: "row", on: { submit: (event) => { event.preventDefault(); look(field.value.trim()); } } },
      element("label", { class: "unseen", for: "item-field" }, "Item id"), field, element("button", { type: "submit" }, "Look up")),
    result);

  async function look(id) {
    field.value = id;
    result.replaceChildren(skeleton("line", 6, "Item"));
    try {
      tell(await api.item(id, NEIGHBOURS));
    } catch (problem) {
      if (problem.status === 404) result.replaceChildren(empty("No such item", `The catalogue in service does not hold ${id}. Ids are those of the catalogue that was trained on.`));
      else result.replaceChildren(failure(problem, () => look(id)));
    }
  }

  function tell(item) {
    result.replaceChildren(
      element("div", { class: "item" }, tile(item), element("div", {},
        element("h3", {}, item.title || item.item_id),
        ...item.paths.map((path) => element("p", { class: "small" }, path.join(" › "))))),
      element("ol", { class: "levels", "aria-label": "Semantic ID, coarse to fine" }, item.semantic_id.map((code, at) => level(levels[at], code, item))),
      element("h3", {}, "Nearest by vector"),
      element("ol", { class: "near" }, item.neighbours.map((each) => neighbour(each, item))));
  }

  function level(facts, code, item) {
    const mark = element("i", { "aria-hidden": "true" });
    mark.style.setProperty("--at", facts ? code / Math.max(1, facts.codebook_size - 1) : 0);
    mark.style.setProperty("--hue", hueOf(item.path));
    return element("li", {}, element("span", { class: "small" }, facts?.name ?? "level"), element("b", { class: "number" }, String(code)),
      element("span", { class: "track" }, mark), element("span", { class: "small" }, facts ? `of ${facts.codebook_size}` : ""));
  }

  function neighbour(each, item) {
    const differs = each.semantic_id.findIndex((code, at) => code !== item.semantic_id[at]);
    const shared = differs < 0 ? each.semantic_id.length : differs;
    const bar = element("i", { class: "meter", "aria-hidden": "true" });
    bar.style.setProperty("--share", Math.max(0, each.likeness));
    return element("li", {}, element("button", { type: "button", on: { click: () => look(each.item_id) } }, tile(each),
      element("span", { class: "title" }, each.title || each.item_id),
      element("span", { class: "codes" }, each.semantic_id.map((code, at) => element("span", { data: { shared: at < shared } }, String(code)))),
      bar, element("b", { class: "number" }, each.likeness.toFixed(2))));
  }

  if (first && may("read")) look(first);
  return {
    node,
    look(id) {
      look(id);
      node.scrollIntoView({ block: "start" });
      field.focus({ preventScroll: true });
    },
  };
}
