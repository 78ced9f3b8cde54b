// From broad to narrow: where the next item is likely to be, place by place.

import { may } from "./access.js";
import { api } from "./api.js";
import { element, percent, whole } from "./dom.js";
import { failure, skeleton } from "./states.js";
import { hueOf, spreadHues } from "./tile.js";

const SHOWN = 8;

/** The panel of choices; `go` is told the path that was chosen, `open` the choice of an item. */
export function choicesPanel({ go, open }) {
  const crumbs = element("nav", { class: "crumbs", "aria-label": "Place in the catalogue" });
  const note = element("p", { class: "small" });
  const body = element("div", {}, skeleton("bar", 5, "Where next"));
  const node = element("section", { class: "panel choices", "aria-labelledby": "choices-title" },
    element("div", { class: "head" }, element("h2", { id: "choices-title" }, "Where next?"), note), crumbs, body);
  let all = false;

  function tellCrumbs(path) {
    const steps = ["Everything", ...path];
    crumbs.replaceChildren(element("ol", {}, steps.map((name, depth) => element("li", {},
      depth === steps.length - 1
        ? element("span", { "aria-current": "location" }, name)
        : element("button", { type: "button", on: { click: () => go(path.slice(0, depth)) } }, name)))));
  }

  function bar(choice, share) {
    const fill = element("span", { class: "fill" });
    fill.style.setProperty("--share", share);
    fill.style.setProperty("--hue", hueOf(choice.path));
    const isItem = choice.kind === "item";
    const under = isItem ? "one item" : `${whole(choice.items)} items${choice.best?.length ? ` · ${choice.best[0].title}` : ""}`;
    return element("li", {}, element("button", { type: "button", class: "choice", data: { kind: choice.kind },
      on: { click: () => (isItem ? open(choice) : go(choice.path)) } },
      fill, element("span", { class: "name" }, choice.name), element("span", { class: "share" }, percent(share)),
      element("span", { class: "small" }, under)));
  }

  function tellChoices(choices, shareOf) {
    const shown = all ? choices : choices.slice(0, SHOWN);
    const list = element("ol", { class: "bars" }, shown.map((choice) => bar(choice, shareOf(choice))));
    const hidden = choices.length - shown.length;
    const more = hidden > 0 ? element("button", { type: "button", class: "quiet wide", on: { click: () => { all = true; tellChoices(choices, shareOf); } } }, `Show ${hidden} more`) : null;
    body.replaceChildren(list, ...(more ? [more] : []));
  }

  /** Counts of items where the decoder has no probabilities of places. */
  async function tellCounts(path, signal) {
    const found = await api.taxonomy(path, signal);
    if (path.length === 0) spreadHues(found.choices.map((choice) => choice.name));
    note.textContent = "This bundle’s decoder knows no chances of places: the bars count items.";
    const choices = [...found.choices].sort((a, b) => b.items - a.items);
    tellChoices(choices, (choice) => choice.items / (found.items_here || 1));
  }

  return {
    node,
    async tell(user, path, signal) {
      all = false;
      tellCrumbs(path);
      try {
        const found = await api.explore({ user_id: user, path, k: 0, items_per_choice: 1 }, signal);
        if (path.length === 0) spreadHues(found.choices.map((choice) => choice.name));
        note.textContent = path.length ? `${percent(found.probability)} of everything is here` : "";
        tellChoices(found.choices, (choice) => choice.probability / (found.probability || 1));
      } catch (problem) {
        if (problem.name === "AbortError") throw problem;
        if (problem.status === 422 && may("read")) return tellCounts(path, signal).catch(fail);
        return fail(problem);
      }
      function fail(problem) {
        body.replaceChildren(failure(problem, () => go(path)));
      }
    },
  };
}
