// The shop-like page: a visitor, what they did, where next, and what is recommended.

import { may } from "./access.js";
import { api } from "./api.js";
import { cardList } from "./cards.js";
import { choicesPanel } from "./choices.js";
import { element, tell } from "./dom.js";
import { failure } from "./states.js";
import { currentVisitor, remember, visitorPanel } from "./visitor.js";
import { openWhy } from "./why.js";

const K = 12;
const TASTE_ITEMS = 3;
const ANYBODYS = new Set(["popular", "default"]); // sources that know nothing of the visitor
const TITLE_MAX = 48;
const DONE = { view: "Viewed", cart: "In the cart", purchase: "Bought", dislike: "Not shown again" };

function short(item) {
  const title = item.title || item.item_id;
  return title.length > TITLE_MAX ? `${title.slice(0, TITLE_MAX - 1)}…` : title;
}

export function shopPage() {
  let path = [];
  let answer = null;
  let done = []; // newest first; what is told of a visitor whose stored history the key may not read
  let asking = new AbortController();
  let catalogue = null;

  const visitor = visitorPanel({
    changed() {
      path = [];
      done = [];
      cards.wait();
      visitor.wait();
      refresh();
      tell(`Now shopping as ${currentVisitor()}`);
    },
    erased() {
      done = [];
      tell(`Nothing is stored of ${currentVisitor()} any more`);
      refresh();
    },
  });
  const choices = choicesPanel({
    go(to) {
      path = to;
      refresh({ crumb: true });
    },
    open: openPlace,
  });
  const cards = cardList({
    act,
    open: (item) => openWhy(item, () => ask({ explain: true, after: answer.after })),
    more: nextPage,
  });
  const node = element("div", { class: "shop" }, visitor.node, element("div", { class: "main" }, choices.node, cards.node));

  const ask = ({ signal, ...more } = {}) => api.recommend({ user_id: currentVisitor(), k: K, path, ...more }, signal);

  async function refresh({ crumb = false } = {}) {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    visitor.name();
    cards.busy(true);
    const parts = [tellVisitor(signal), tellCards(signal), choices.tell(currentVisitor(), path, signal)];
    for (const part of await Promise.allSettled(parts)) {
      if (part.status === "rejected" && part.reason.name !== "AbortError") throw part.reason;
    }
    if (signal.aborted) return;
    cards.busy(false);
    if (crumb) choices.node.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  async function tellCards(signal) {
    try {
      answer = await ask({ signal });
      catalogue ??= may("read") ? (await api.info()).items : null;
      remember(answer.items);
      const isKnown = answer.items.some((item) => !ANYBODYS.has(item.source));
      const where = path.length ? ` in ${path.at(-1)}` : "";
      const title = isKnown ? `For ${currentVisitor()}${where}` : `Popular${where || " now"}`;
      const fresh = cards.tell(answer, title, { catalogue: path.length ? null : catalogue, again: true });
      if (fresh) tell(`List updated: ${fresh} new of ${answer.items.length}. First is ${short(answer.items[0])}`);
    } catch (problem) {
      if (problem.name === "AbortError" || problem.needsKey) return;
      if (answer === null || problem.status !== 0) cards.fail(problem, refresh);
    }
  }

  async function tellVisitor(signal) {
    try {
      const stored = may("read") ? await api.user(currentVisitor(), signal) : null;
      const entries = stored ? [...stored.history].reverse() : done;
      await visitor.tell(entries, stored?.disliked ?? [], may("write", "publishable") ? [tastes()] : []);
    } catch (problem) {
      if (problem.name !== "AbortError" && !problem.needsKey) visitor.fail(failure(problem, refresh));
    }
  }

  function tastes() {
    const button = element("button", { type: "button", id: "taste", on: { click: giveTaste } }, "Give them a taste");
    return element("p", {}, button);
  }

  /** Views of a few items of one broad category, so that there is something to follow. */
  async function giveTaste() {
    const most = await api.recommend({ k: 60 });
    const groups = Map.groupBy(most.items, (item) => item.path.slice(0, 2).join("\n"));
    const [chance] = crypto.getRandomValues(new Uint16Array(1));
    const liked = [...groups.values()].filter((group) => group.length >= TASTE_ITEMS);
    const chosen = (liked.length ? liked[chance % liked.length] : most.items).slice(0, TASTE_ITEMS);
    remember(chosen);
    const stored = [];
    for (const item of chosen) stored.push(await store("view", item, most.recommendation_id));
    if (stored.every(Boolean)) tell(`${currentVisitor()} has looked at ${chosen.length} items`);
    refresh();
  }

  /** Open the item that is a place of its own. */
  async function openPlace(choice) {
    try {
      const found = await ask({ path: choice.path, k: 1, explain: true });
      if (found.items.length) openWhy(found.items[0], async () => found);
      else tell(`${choice.name} has been seen already`);
    } catch (problem) {
      tell(problem.words.join(". "), { problem: true, again: () => openPlace(choice) });
    }
  }

  async function act(type, item) {
    if (await store(type, item, answer.recommendation_id)) {
      tell(`${DONE[type]}: ${short(item)}`);
      refresh();
    }
  }

  async function store(type, item, recommendation, id = crypto.randomUUID?.() ?? String(Math.random())) {
    const event = { event_id: id, user_id: currentVisitor(), item_id: item.item_id, type, recommendation_id: recommendation };
    try {
      await api.event(event);
      done.unshift({ item_id: item.item_id, type, timestamp: Date.now() / 1000 });
      return true;
    } catch (problem) {
      const again = async () => (await store(type, item, recommendation, id)) && refresh();
      tell(`Not stored: ${problem.words.join(". ")}`, { problem: true, again });
      return false;
    }
  }

  async function nextPage() {
    try {
      const after = answer.recommendation_id;
      answer = { ...(await ask({ after })), after };
      remember(answer.items);
      cards.tell(answer, "The next ones", { catalogue: path.length ? null : catalogue, again: false });
      cards.node.scrollIntoView({ block: "start" });
    } catch (problem) {
      cards.fail(problem, refresh);
    }
  }

  visitor.wait();
  refresh();
  return { node, refresh, leave: () => asking.abort() };
}
