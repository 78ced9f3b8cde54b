// What stands where content is missing: not yet there, none, or gone wrong.

import { element } from "./dom.js";

/** Grey shapes of what is coming; `name` is read out. */
export function skeleton(kind, count, name) {
  const shapes = [...Array(count)].map(() => element("div", { class: `skeleton ${kind}`, "aria-hidden": "true" }));
  return element("div", { class: `skeletons ${kind}s`, role: "group", "aria-label": `${name}, loading`, "aria-busy": "true" }, shapes);
}

export function empty(title, text, ...more) {
  return element("div", { class: "state" }, element("h3", {}, title), element("p", {}, text), ...more);
}

/** What happened and what to do about it. */
export function failure(problem, again) {
  const [what, remedy] = problem.words ?? ["That did not work", String(problem.message)];
  const button = element("button", { type: "button", on: { click: again } }, "Try again");
  return element("div", { class: "state bad", role: "alert" }, element("h3", {}, what), element("p", {}, remedy), button);
}
