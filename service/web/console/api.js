// The door to the service: every request, its key, and what went wrong in words for people.

const KEY = "cofine.key";
const TOKEN = "cofine.user-token";
const PATIENCE_MS = 15_000;

/** What the service, or the way to it, answered instead of a result. */
export class Problem extends Error {
  constructor(status, code, detail, errors = []) {
    super(detail);
    Object.assign(this, { status, code, errors });
  }

  get needsKey() {
    return this.status === 401;
  }

  /** [what happened, what to do] */
  get words() {
    if (this.status === 0) {
      return ["The service does not answer", "It may be restarting. This page tries again by itself."];
    }
    if (this.status === 401) return ["A key is needed", "Enter one with the button at the top."];
    if (this.status === 403) return ["This key may not do that", "Use a key with more scopes."];
    if (this.status === 429) return ["Too many requests", "Wait a moment, then try again."];
    if (this.status === 503) return ["Not available now", `${this.message}. Nothing was lost: try again.`];
    if (this.status === 504) return ["It took too long", "The service is busy: try again."];
    return ["That did not work", this.errors[0]?.detail ?? this.message];
  }
}

export const credentials = {
  get key() { return sessionStorage.getItem(KEY); },
  set({ key, token }) {
    for (const [name, value] of [[KEY, key], [TOKEN, token]]) {
      if (value) sessionStorage.setItem(name, value);
      else sessionStorage.removeItem(name);
    }
  },
};

function headers(body) {
  const given = {};
  const key = sessionStorage.getItem(KEY);
  const token = sessionStorage.getItem(TOKEN);
  if (body !== undefined) given["Content-Type"] = "application/json";
  if (key) given.Authorization = `Bearer ${key}`;
  if (token) given["X-User-Token"] = token;
  return given;
}

async function request(method, path, body, signal) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: headers(body),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "unreachable", "the service does not answer");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const problem = new Problem(response.status, told.code ?? "unknown", told.detail ?? response.statusText, told.errors);
  if (problem.needsKey) dispatchEvent(new CustomEvent("key-needed"));
  throw problem;
}

const json = async (...asked) => (await request(...asked)).json();
const place = (path) => path.map((name) => `path=${encodeURIComponent(name)}`).join("&");

export const api = {
  access: () => json("GET", "v1/access"),
  info: () => json("GET", "v1/info"),
  ready: () => json("GET", "readyz"),
  metrics: async () => (await request("GET", "metrics")).text(),
  recommend: (body, signal) => json("POST", "v1/recommend", body, signal),
  explore: (body, signal) => json("POST", "v1/explore", body, signal),
  taxonomy: (path, signal) => json("GET", `v1/taxonomy?${place(path)}`, undefined, signal),
  item: (id, neighbours = 0) => json("GET", `v1/items/${encodeURIComponent(id)}?neighbours=${neighbours}`),
  user: (id, signal) => json("GET", `v1/users/${encodeURIComponent(id)}`, undefined, signal),
  erase: (id) => request("DELETE", `v1/users/${encodeURIComponent(id)}`),
  event: (body) => json("POST", "v1/events", body),
  bundles: () => json("GET", "v1/bundles"),
  load: (name) => json("POST", `v1/bundles/${encodeURIComponent(name)}:load`),
  preview: (name, body) => json("POST", `v1/bundles/${encodeURIComponent(name)}:preview`, body),
};
