// Two lists for the same visitor, side by side: two bundles, or two ways of searching one.

import { may, usesKeys } from "./access.js";
import { api } from "./api.js";
import { drawing, element, milliseconds } from "./dom.js";
import { empty, failure, skeleton } from "./states.js";
import { tile } from "./tile.js";
import { currentVisitor } from "./visitor.js";

const K = 10;
const ROW = 60;
const GAP = 90;
const WAYS = {
  served: { name: "as served", body: {} },
  narrow: { name: "beam of 10", body: { beam: 10 } },
  auto: { name: "widened until proven", body: { beam: "auto" } },
  diverse: { name: "calibrated to the history", body: { diversity: 0.7 } },
  hurried: { name: "in 15 ms", body: { deadline_ms: 15 } },
};

export function comparePanel() {
  const user = element("input", { id: "compare-user", value: currentVisitor(), maxlength: 256, autocomplete: "off", spellcheck: "false" });
  const history = element("input", { id: "compare-history", placeholder: "item ids, oldest first", autocomplete: "off", spellcheck: "false" });
  const sides = [side("Left", "served"), side("Right", "diverse")];
  const result = element("div", { class: "compared", "aria-live": "polite" });
  const note = element("p", { class: "small" });
  const node = element("section", { class: "panel compare", "aria-labelledby": "compare-title" },
    element("h2", { id: "compare-title" }, "Side by side"), note,
    element("form", { on: { submit: (event) => { event.preventDefault(); compare(); } } },
      element("div", { class: "fields" },
        element("div", {}, element("label", { for: "compare-user" }, "Visitor"), user),
        element("div", {}, element("label", { for: "compare-history" }, "or this history instead"), history)),
      element("div", { class: "fields" }, sides.map((each) => each.node)),
      element("button", { class: "primary", type: "submit" }, "Compare")),
    result);

  async function offerBundles() {
    if (!may("admin")) {
      note.textContent = usesKeys()
        ? "Two ways of searching the bundle in service. With an admin key, other bundles can be chosen, too."
        : "Two ways of searching the bundle in service. To compare bundles, set COFINE_KEYS and COFINE_BUNDLES, and use an admin key.";
      return;
    }
    try {
      const { bundles, rollout } = await api.bundles();
      for (const each of sides) each.offer(bundles, rollout.active.name);
      const other = bundles.find((each) => each.name !== rollout.active.name);
      if (other) sides[1].choose(other.name);
      note.textContent = "Nobody is served these lists, and no metric counts them.";
    } catch (problem) {
      note.replaceChildren(failure(problem, offerBundles));
    }
  }

  async function compare() {
    result.replaceChildren(skeleton("line", K, "Comparison"));
    const ids = history.value.split(/[\s,]+/).filter(Boolean);
    const whom = { ...(user.value.trim() ? { user_id: user.value.trim() } : {}), ...(ids.length ? { history: ids } : {}) };
    try {
      const answers = await Promise.all(sides.map((each) => each.ask({ ...whom, k: K })));
      tell(answers);
    } catch (problem) {
      result.replaceChildren(failure(problem, compare));
    }
  }

  function tell([left, right]) {
    if (!left.items.length || !right.items.length) {
      result.replaceChildren(empty("Nothing to compare", "One of the lists is empty: choose another visitor."));
      return;
    }
    const places = new Map(right.items.map((item, at) => [item.item_id, at]));
    const shared = left.items.filter((item) => places.has(item.item_id)).length;
    const same = left.items.filter((item, at) => places.get(item.item_id) === at).length;
    const others = new Set(left.items.map((item) => item.item_id));
    result.replaceChildren(
      element("p", { class: "verdict" }, element("b", {}, `${shared} of ${Math.max(left.items.length, right.items.length)}`), ` items in both, ${same} at the same rank`),
      element("div", { class: "pair" },
        column(sides[0].title, left, (item) => places.has(item.item_id)),
        lines(left.items, places),
        column(sides[1].title, right, (item) => others.has(item.item_id))));
  }

  offerBundles();
  return { node };
}

function side(name, way) {
  const id = `compare-${name.toLowerCase()}`;
  const bundle = element("select", { id: `${id}-bundle` }, element("option", { value: "" }, "in service"));
  const order = element("select", { id }, Object.entries(WAYS).map(([value, { name: shown }]) => element("option", { value, selected: value === way }, shown)));
  const node = element("fieldset", {}, element("legend", {}, name),
    element("label", { for: `${id}-bundle` }, "Bundle"), bundle, element("label", { for: id }, "Search"), order);
  let open = new Set();
  return {
    node,
    get title() {
      return `${bundle.selectedOptions[0].textContent}, ${WAYS[order.value].name}`;
    },
    offer(bundles, active) {
      open = new Set(bundles.filter((each) => each.open).map((each) => each.name));
      bundle.replaceChildren(...bundles.map((each) => element("option", { value: each.name, selected: each.name === active }, each.name === active ? `${each.name} (in service)` : each.name)));
    },
    choose(other) {
      bundle.value = other;
      order.value = "served";
    },
    async ask(body) {
      const asked = { ...body, ...WAYS[order.value].body };
      if (!bundle.value) return api.recommend(asked);
      if (!open.has(bundle.value)) {
        await api.load(bundle.value);
        open.add(bundle.value);
      }
      return api.preview(bundle.value, asked);
    },
  };
}

function column(title, answer, isShared) {
  return element("div", { class: "column" },
    element("h3", {}, title, element("span", { class: "small number" }, ` ${[answer.decoder, milliseconds(answer.took_ms), answer.certified && "proven"].filter(Boolean).join(", ")}`)),
    element("ol", {}, answer.items.map((item) => element("li", { data: { shared: isShared(item) } },
      element("span", { class: "rank number" }, String(item.rank)), tile(item),
      element("div", {}, element("p", { class: "title" }, item.title || item.item_id), element("p", { class: "small path" }, item.path.at(-1) ?? ""))))));
}

/** Lines from an item's place on the left to its place on the right. */
function lines(items, places) {
  const ends = items.flatMap((item, at) => (places.has(item.item_id) ? [[at, places.get(item.item_id)]] : []));
  const middle = (at) => (at + 0.5) * ROW;
  return drawing("svg", { class: "lines", viewBox: `0 0 ${GAP} ${K * ROW}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ends.map(([from, to]) =>
    drawing("path", { d: `M0 ${middle(from)} C${GAP / 2} ${middle(from)} ${GAP / 2} ${middle(to)} ${GAP} ${middle(to)}`, class: from === to ? "same" : to < from ? "up" : "down" })));
}
