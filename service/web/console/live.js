// What the service measures of itself, read every two seconds while it is looked at.

import { api } from "./api.js";
import { drawing, element, milliseconds } from "./dom.js";
import { between, buckets, quantile, samples, total } from "./prometheus.js";
import { failure, skeleton } from "./states.js";

const EVERY_MS = 2000;
const KEPT = 60;
const STAGE = "cofine_recommend_stage_duration_seconds";
const HTTP = "cofine_http_request_duration_seconds";
const ROUTE = { route: "/v1/recommend", method: "POST", status: "200" };
const STAGES = [
  { title: "Whole request", name: HTTP, labels: ROUTE },
  { title: "Read the visitor", name: STAGE, labels: { stage: "state" } },
  { title: "Wait for a worker", name: "cofine_queue_wait_seconds", labels: {} },
  { title: "Encode the history", name: STAGE, labels: { stage: "encode" } },
  { title: "Search the codes", name: STAGE, labels: { stage: "decode" } },
  { title: "Resolve the items", name: STAGE, labels: { stage: "resolve" } },
];

export function livePanel() {
  const body = element("div", {}, skeleton("bar", 4, "Live figures"));
  const note = element("p", { class: "small" });
  const node = element("section", { class: "panel live", "aria-labelledby": "live-title" },
    element("div", { class: "head" }, element("h2", { id: "live-title" }, "Right now"), note), body);
  let readings = [];
  let timer = null;

  async function look() {
    try {
      if (!document.hidden) {
        readings = [...readings, { at: performance.now(), found: samples(await api.metrics()) }].slice(-KEPT);
        tell();
      }
    } catch (problem) {
      readings = []; // of a process that may be another one next time
      body.replaceChildren(failure(problem, again));
    } finally {
      timer = setTimeout(look, EVERY_MS);
    }
  }

  function again() {
    clearTimeout(timer);
    look();
  }

  function tell() {
    const [first, last] = [readings[0], readings.at(-1)];
    const answered = total(last.found, `${HTTP}_count`, ROUTE) - total(first.found, `${HTTP}_count`, ROUTE);
    // Without requests in the window, everything since the start is more than nothing.
    const since = answered > 0 ? first.found : new Map();
    note.textContent = answered > 0 ? `over the last ${Math.max(2, Math.round((last.at - first.at) / 1000))} s` : "since the service started";
    const counted = (name, labels) => total(last.found, name, labels) - total(since, name, labels);
    const searched = ["generated", "partial"].reduce((sum, source) => sum + counted("cofine_recommendations_total", { source }), 0);
    const certified = counted("cofine_certified_total");
    const spread = (at) => between(buckets(since, at.name, at.labels), buckets(last.found, at.name, at.labels));
    const whole = spread(STAGES[0]);
    const rate = answered > 0 ? answered / ((last.at - first.at) / 1000) : 0;
    body.replaceChildren(
      element("dl", { class: "figures" },
        figure("Half answer within", inMs(quantile(0.5, whole)), "p50 of /v1/recommend"),
        figure("Nearly all within", inMs(quantile(0.95, whole)), "p95 of /v1/recommend"),
        figure("Proven exact", searched > 0 ? `${Math.round((100 * certified) / searched)} %` : "–", "of lists that were searched"),
        figure("Answers", `${rate.toFixed(1)} /s`, "of /v1/recommend")),
      element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Time by stage" }, element("table", {},
        element("caption", { class: "unseen" }, "Time by stage of a recommendation"),
        element("thead", {}, element("tr", {}, ["Stage", "p50", "p95", "p95, last two minutes"].map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, STAGES.map((stage) => {
          const counts = spread(stage);
          return element("tr", {}, element("th", { scope: "row" }, stage.title),
            element("td", {}, inMs(quantile(0.5, counts))), element("td", {}, inMs(quantile(0.95, counts))), element("td", {}, sparkline(trend(stage))));
        })))));
  }

  /** p95 between each two readings; null where nothing happened. */
  function trend(stage) {
    return readings.slice(1).map((reading, at) => quantile(0.95, between(buckets(readings[at].found, stage.name, stage.labels), buckets(reading.found, stage.name, stage.labels))));
  }

  look();
  return { node, leave: () => clearTimeout(timer) };
}

const inMs = (seconds) => (seconds === null ? "–" : milliseconds(seconds * 1000));

function figure(name, value, about) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, element("b", {}, value), element("span", { class: "small" }, about)));
}

function sparkline(values) {
  const width = 120;
  const height = 28;
  const most = Math.max(...values.filter((value) => value !== null), 1e-9);
  const place = (value, at) => [width - (values.length - 1 - at) * (width / (KEPT - 2)), height - 3 - (value / most) * (height - 6)];
  const marks = values.flatMap((value, at) => (value === null ? [] : [place(value, at)]));
  const line = drawing("polyline", { points: marks.map((mark) => mark.map((each) => each.toFixed(1)).join(",")).join(" ") });
  const ends = marks.slice(-1).map(([x, y]) => drawing("circle", { cx: x, cy: y, r: 2.5 }));
  return drawing("svg", { viewBox: `0 0 ${width} ${height}`, class: "sparkline", "aria-hidden": "true" },
    drawing("path", { d: `M0 ${height - 1}H${width}`, class: "floor" }), line, ends);
}
