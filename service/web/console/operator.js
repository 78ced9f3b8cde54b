// The operator's page: live figures, comparison, look-up, and the tree.

import { may } from "./access.js";
import { api } from "./api.js";
import { comparePanel } from "./compare.js";
import { element, whole } from "./dom.js";
import { livePanel } from "./live.js";
import { lookupPanel } from "./lookup.js";
import { empty, failure } from "./states.js";
import { treePanel } from "./tree.js";

export function operatorPage(asked) {
  const live = livePanel();
  const facts = element("p", { class: "facts" });
  const rest = element("div", { class: "rest" });
  const node = element("div", { class: "operator" },
    element("div", { class: "page-head" }, element("h1", {}, "What is in service"), facts), live.node, rest);

  async function begin() {
    if (!may("read")) {
      const shown = may("admin") ? [comparePanel().node] : [];
      rest.replaceChildren(...shown, empty("This key does not read", "Looking at items and the tree needs a key with the scope read."));
      return;
    }
    try {
      const info = await api.info();
      facts.replaceChildren(...[["bundle", info.bundle], ["items", whole(info.items)], ["decoder", info.decoder], ["levels", info.levels.map((each) => each.name).join(" → ")], ["state", info.state.kind], ["release", info.version]]
        .map(([name, value]) => element("span", {}, element("span", { class: "small" }, `${name} `), element("b", {}, value))));
      const lookup = lookupPanel(info.levels, asked.get("item"));
      const tree = treePanel({ open: lookup.look });
      rest.replaceChildren(comparePanel().node, lookup.node, tree.node);
      tree.begin();
      if (asked.get("item")) lookup.node.scrollIntoView({ block: "start" });
    } catch (problem) {
      rest.replaceChildren(failure(problem, begin));
    }
  }

  begin();
  return { node, refresh: begin, leave: live.leave };
}
