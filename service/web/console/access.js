// What this page may do, and asking for a key where one is needed.

import { api, credentials } from "./api.js";
import { element } from "./dom.js";

let known = { access: "open", scopes: [], user_id: null };

/** Ask the service; raises a Problem. */
export async function learnAccess() {
  known = await api.access();
  return known;
}

export const may = (...scopes) => scopes.some((scope) => known.scopes.includes(scope));
export const usesKeys = () => known.access === "keys";
export const onlyUser = () => known.user_id;

/** The whole page while there is no key; `done` is called once one works. */
export function keyPage(done) {
  const message = element("p", { class: "form-problem", role: "alert" });
  const key = element("input", { id: "key-field", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const token = element("input", { id: "token-field", type: "password", autocomplete: "off", spellcheck: "false" });
  const enter = async (event) => {
    event.preventDefault();
    message.textContent = "";
    credentials.set({ key: key.value.trim(), token: token.value.trim() });
    try {
      await learnAccess();
      done();
    } catch (problem) {
      credentials.set({});
      message.textContent = problem.needsKey
        ? "The service does not take this. Check that the key is whole and in force; a publishable key needs a user token as well."
        : problem.words.join(". ");
      key.focus();
    }
  };
  return element("section", { class: "key-page" },
    element("h1", {}, "This service asks for a key"),
    element("p", {}, "Its operator has set COFINE_KEYS. What you see here follows the key: ",
      element("b", {}, "read"), " shows recommendations and items, ", element("b", {}, "write"),
      " records events, ", element("b", {}, "admin"), " compares bundles."),
    element("form", { on: { submit: enter } },
      element("label", { for: "key-field" }, "Key"), key,
      element("details", {}, element("summary", {}, "It is a publishable key"),
        element("label", { for: "token-field" }, "User token, from the shop’s backend"), token),
      message,
      element("button", { class: "primary", type: "submit" }, "Open the console")),
    element("p", { class: "small" }, "The key stays in this tab and is forgotten when it closes."));
}
