// Why an item is in the list: the way to it, and what the history has to do with it.

import { element, percent, signed } from "./dom.js";
import { failure, skeleton } from "./states.js";
import { tile } from "./tile.js";
import { described } from "./visitor.js";

/** Open the dialogue about an item; `ask` brings the answer that explains. */
export function openWhy(item, ask) {
  const body = element("div", {}, skeleton("line", 5, "Reasons"));
  const close = element("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, "Close");
  const dialog = element("dialog", { class: "why-box", "aria-labelledby": "why-title" },
    element("div", { class: "why-head" }, tile(item), element("div", {},
      element("p", { class: "small" }, item.path.join(" › ")), element("h2", { id: "why-title" }, item.title || item.item_id),
      element("p", { class: "codes" }, item.semantic_id.map((code) => element("span", {}, String(code))))), close),
    body,
    element("p", { class: "end" }, element("a", { href: `#/operator?item=${encodeURIComponent(item.item_id)}`, on: { click: () => dialog.close() } }, "Its codes and neighbours")));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  fill(body, item, ask);
}

async function fill(body, item, ask) {
  try {
    const answer = await ask();
    const found = answer.items.find((each) => each.item_id === item.item_id);
    if (!found?.explanation) {
      body.replaceChildren(element("p", {}, "The list has changed since; look at the item’s new place in it."));
      return;
    }
    const { way, influences, certified } = found.explanation;
    const known = await Promise.all(influences.map((each) => described(each.item_id)));
    body.replaceChildren(
      element("h3", {}, "The way from broad to narrow"),
      element("ol", { class: "way" }, way.map((step) => element("li", {}, meter(step.probability ** 0.35), element("span", {}, step.name), element("b", {}, percent(step.probability))))),
      ...(influences.length ? [element("h3", {}, "What the history does for it"), element("ol", { class: "way" }, influences.map((each, at) =>
        element("li", { data: { against: each.log_prob_drop < 0 } }, meter(Math.min(1, Math.abs(each.log_prob_drop) / 2)), element("span", {}, known[at].title || each.item_id), element("b", {}, signed(each.log_prob_drop, "+")))))] : []),
      element("p", { class: "small" }, influences.length === 0 ? "Nothing is known of the visitor: the chances are shares of past events." : certified ? "The list is proven to be the exact best." : "The list is the search’s best."));
  } catch (problem) {
    if (problem.status === 422) body.replaceChildren(element("p", {}, "This bundle’s decoder writes its codes in any order: it has no chances per level to show."));
    else body.replaceChildren(failure(problem, () => fill(body, item, ask)));
  }
}

function meter(share) {
  const fill = element("i", { class: "meter", "aria-hidden": "true" });
  fill.style.setProperty("--share", share);
  return fill;
}
