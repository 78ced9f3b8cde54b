// Pictures for items that have none: the hue is the category's, the motif that of the finer codes,
// so that items which the model takes for alike look alike.

import { drawing } from "./dom.js";

const GOLDEN_ANGLE = 137.508;
const SPARK = "hsl(38 82% 62%)";
const hues = new Map();

/** Give each broad category a hue of its own; the order of names decides, so it stays. */
export function spreadHues(names) {
  hues.clear();
  [...names].sort().forEach((name, at) => hues.set(name, (168 + at * GOLDEN_ANGLE) % 360));
}

export function hueOf(path) {
  const known = path.find((name) => hues.has(name));
  if (known !== undefined) return hues.get(known);
  let hash = 7;
  for (const letter of path[0] ?? "") hash = (hash * 31 + letter.codePointAt(0)) % 100_003;
  return hash % 360;
}

const MOTIFS = [arcs, stripes, dots, petals, waves, blocks];

/** An SVG picture of an item that has `path` and `semantic_id`. */
export function tile(item) {
  const [, motif = 0, turn = 0, accent = 0] = item.semantic_id;
  const hue = hueOf(item.path) + ((motif % 5) - 2) * 5;
  const colour = (shift, saturation, lightness) => `hsl(${(hue + shift + 360) % 360} ${saturation}% ${lightness}%)`;
  const colours = { back: colour(0, 42, 87), middle: colour(6, 46, 70), deep: colour(-8, 44, 46), spark: SPARK };
  const around = (accent * GOLDEN_ANGLE * Math.PI) / 180;
  const spark = drawing("circle", { cx: 50 + 22 * Math.cos(around), cy: 50 + 22 * Math.sin(around), r: 5 + (accent % 4), fill: colours.spark });
  const shape = drawing("g", { transform: `rotate(${(turn * 45) % 360} 50 50)` }, ...MOTIFS[motif % MOTIFS.length](colours, turn));
  return drawing("svg", { viewBox: "0 0 100 100", class: "tile", "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" },
    drawing("rect", { x: -50, y: -50, width: 200, height: 200, fill: colours.back }), shape, spark);
}

/** A picture of a category: its hue alone. */
export function swatch(path) {
  return drawing("svg", { viewBox: "0 0 10 10", class: "swatch", "aria-hidden": "true" },
    drawing("circle", { cx: 5, cy: 5, r: 5, fill: `hsl(${hueOf(path)} 50% 55%)` }));
}

const range = (count) => [...Array(count).keys()];

function arcs({ middle, deep }, turn) {
  return range(4).map((at) => drawing("circle", { cx: 20, cy: 80, r: 18 + at * (17 + (turn % 4)), fill: "none", stroke: at % 2 ? deep : middle, "stroke-width": 7 }));
}

function stripes({ middle, deep }, turn) {
  return range(7).map((at) => drawing("rect", { x: -30, y: at * 18 - 8, width: 160, height: 5 + ((at + turn) % 3) * 3, rx: 3, fill: at % 3 ? middle : deep }));
}

function dots({ middle, deep }, turn) {
  return range(25).map((at) => drawing("circle", { cx: 10 + (at % 5) * 20, cy: 10 + Math.floor(at / 5) * 20, r: 3 + ((at * (3 + (turn % 5))) % 6), fill: at % 4 ? middle : deep }));
}

function petals({ middle, deep }, turn) {
  const count = 5 + (turn % 4);
  return range(count).map((at) => drawing("ellipse", { cx: 50, cy: 27, rx: 10, ry: 22, fill: at % 2 ? deep : middle, "fill-opacity": 0.85, transform: `rotate(${(360 / count) * at} 50 50)` }));
}

function waves({ middle, deep }, turn) {
  const high = 6 + (turn % 5);
  return range(6).map((at) => drawing("path", { d: `M-30 ${at * 20} q 20 ${-high * 2} 40 0 t 40 0 t 40 0 t 40 0`, fill: "none", stroke: at % 2 ? middle : deep, "stroke-width": 6 }));
}

function blocks({ middle, deep }, turn) {
  return range(9).map((at) => {
    const side = 14 + ((at * 5 + turn) % 4) * 4;
    return drawing("rect", { x: 4 + (at % 3) * 32, y: 4 + Math.floor(at / 3) * 32, width: side, height: side, rx: (at + turn) % 2 ? side / 2 : 4, fill: at % 2 ? middle : deep });
  });
}
