// Elements without a framework: what a page shows is made of these.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `on` holds listeners, `data` the data-* attributes, null leaves one out. */
export function element(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** The same for SVG. */
export function drawing(tag, given = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), given, children);
}

function filled(node, { on = {}, data = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const [type, listener] of Object.entries(on)) node.addEventListener(type, listener);
  Object.assign(node.dataset, data);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const ICONS = {
  view: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12Zm10 3a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z",
  cart: "M3 4h2.5l2.2 11h10l2.3-8H6.5M9 20h.01M17 20h.01",
  purchase: "M6 8h12l1 13H5L6 8Zm3 0V6a3 3 0 0 1 6 0v2",
  dislike: "M17 3v11l-4.5 7c-1.4 0-2.2-1-2-2.4L11 15H5.6A2.3 2.3 0 0 1 3.4 12l1.8-7.2A2.4 2.4 0 0 1 7.5 3H17Zm0 0h4v11h-4",
  why: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 1.9V15m0 3h.01",
};

/** A line icon by the name of an event type. */
export function icon(name) {
  const path = drawing("path", { d: ICONS[name] ?? ICONS.view });
  return drawing("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, path);
}

export const percent = (share) => {
  const points = share * 100;
  if (points > 0 && points < 0.1) return "< 0.1 %";
  if (points < 100 && points >= 99.5) return "> 99 %";
  return `${points.toFixed(points < 10 ? 1 : 0)} %`;
};

export const whole = (number) => number.toLocaleString("en");

export const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

/** Two decimals with a real minus sign, and `plus` before what is not below 0. */
export const signed = (value, plus = "") => `${value < 0 ? "−" : plus}${Math.abs(value).toFixed(2)}`;

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Tell what happened, seen and heard; a problem stays until it is closed or tried again. */
export function tell(text, { problem = false, again = null } = {}) {
  const toast = element("div", { class: problem ? "toast bad" : "toast" }, element("span", {}, text));
  const close = () => toast.remove();
  if (again) {
    toast.append(element("button", { type: "button", on: { click: () => { close(); again(); } } }, "Try again"));
  }
  if (problem) toast.append(element("button", { type: "button", on: { click: close } }, "Close"));
  else setTimeout(close, 4500);
  document.getElementById("toasts").replaceChildren(toast);
}
