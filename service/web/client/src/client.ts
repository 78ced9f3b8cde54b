/**
 * A client of a Cofine service for browsers, Node and other places that have `fetch`.
 *
 * A call that may be repeated safely is tried again after a failed connection, a timeout and the
 * answers 429, 502, 503 and 504, after a random, growing pause or, where the service says one, its
 * Retry-After: recommending and reading change nothing, an event is known by its id, an erasure is
 * an erasure. Only `rollBack` is not such a call: it is tried again after 429 alone, which says that
 * nothing was done.
 *
 * One method per route, typed from the OpenAPI document.
 */
import type { components } from "./schema.js";

type Schemas = components["schemas"];
/** The fields that a request must have, and those that the service has a default for. */
type Given<Body, Required extends keyof Body> = Pick<Body, Required> & Partial<Body>;

export type RecommendRequest = Partial<Schemas["RecommendRequest"]>;
export type ExploreRequest = Partial<Schemas["ExploreRequest"]>;
export type ActivateRequest = Partial<Schemas["ActivateRequest"]>;
export type Recommendation = Schemas["RecommendAnswer"];
export type RecommendedItem = Schemas["RecommendedItemBody"];
export type RecommendBatchAnswer = Schemas["RecommendBatchAnswer"];
export type Exploration = Schemas["ExploreAnswer"];
export type Taxonomy = Schemas["TaxonomyAnswer"];
export type Event = Given<Schemas["EventBody"], "event_id" | "user_id" | "item_id">;
export type EventsAnswer = Schemas["EventsAnswer"];
export type User = Schemas["UserAnswer"];
/** An event or an impression as it was logged. */
export type LogRecord = Readonly<Record<string, unknown>>;
export type Item = Schemas["ItemAnswer"];
export type Offer = Partial<Schemas["OfferRequest"]>;
export type ItemEdit = Given<Schemas["ItemBody"], "item_id">;
export type CatalogueEdit = Schemas["CatalogueAnswer"];
export type Info = Schemas["InfoAnswer"];
export type Access = Schemas["AccessAnswer"];
export type Bundles = Schemas["BundlesAnswer"];
export type Preview = Schemas["PreviewAnswer"];
export type Problem = Schemas["Problem"];

/** A call that did not succeed; one that was aborted throws the signal's reason instead. */
export abstract class CofineError extends Error {
  abstract readonly isRetryable: boolean;
  readonly retryAfterMs: number | undefined = undefined;
}

/** No answer came: no connection, or none in time. */
export class UnreachableError extends CofineError {
  override readonly name = "UnreachableError";
  readonly isRetryable = true;
}

/** The service refused; `problem` is undefined where something on the way did. */
export class ProblemError extends CofineError {
  override readonly name = "ProblemError";
  readonly isRetryable: boolean;

  constructor(
    readonly status: number,
    readonly problem: Problem | undefined,
    override readonly retryAfterMs: number | undefined,
  ) {
    super(`${status} ${problem?.code ?? ""}: ${problem?.detail ?? "no details"}`);
    this.isRetryable = RETRYABLE_STATUSES.has(status);
  }
}

/** How long to wait and how often to try. */
export interface Patience {
  /** For one attempt, until its whole answer is there. */
  readonly timeoutMs: number;
  /** No attempt begins later than this after the call began. */
  readonly deadlineMs: number;
  /** 1 never repeats. */
  readonly attemptsMax: number;
}

/** What a client may be told besides the service's address. */
export interface ClientOptions extends Partial<Patience> {
  /** Issued by the service's operator; pages, where everybody reads it, take a publishable one. */
  readonly key?: string | undefined;
  /** Issued by the shop's backend to its visitor; a publishable key needs it. */
  readonly userToken?: string | undefined;
}

/** What every call takes besides its own arguments. */
export interface CallOptions {
  /** Ends the call, the pauses between attempts included. */
  readonly signal?: AbortSignal | undefined;
}

/** What an item may be asked for besides itself. */
export interface ItemOptions extends CallOptions {
  /** How many of the items most like it to tell; none without it. */
  readonly neighbours?: number | undefined;
}

/** A request as HTTP has it. */
interface Call {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  /** Whether doing it twice is the same as doing it once; so it is unless this says no. */
  readonly isRepeatable?: false;
}

const TOO_MANY_REQUESTS = 429;
const RETRYABLE_STATUSES: ReadonlySet<number> = new Set([TOO_MANY_REQUESTS, 502, 503, 504]);
const FIRST_PAUSE_MS = 100;
const DEFAULT_PATIENCE: Patience = { timeoutMs: 5_000, deadlineMs: 15_000, attemptsMax: 3 };

export class Client {
  readonly #url: string;
  readonly #patience: Patience;
  readonly #headers: Readonly<Record<string, string>>;

  /** Talks to the service at `url`, as `https://recommend.example`. */
  constructor(url: string, { key, userToken, ...patience }: ClientOptions = {}) {
    this.#url = url.replace(/\/+$/, "");
    this.#patience = { ...DEFAULT_PATIENCE, ...patience };
    this.#headers = {
      ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
      ...(userToken === undefined ? {} : { "x-user-token": userToken }),
    };
  }

  /** Items for a user, a history or nobody in particular. */
  recommend(request: RecommendRequest, options?: CallOptions): Promise<Recommendation> {
    return this.#call({ method: "POST", path: "/v1/recommend", body: request }, options);
  }

  /** Several recommendations, each answered for itself. */
  recommendBatch(
    requests: readonly RecommendRequest[],
    options?: CallOptions,
  ): Promise<RecommendBatchAnswer> {
    return this.#call({ method: "POST", path: "/v1/recommend:batch", body: { requests } }, options);
  }

  /** Where below a path a user is likely to go on, and the best items there. */
  explore(request: ExploreRequest, options?: CallOptions): Promise<Exploration> {
    return this.#call({ method: "POST", path: "/v1/explore", body: request }, options);
  }

  /** What lies below a place of the tree, for nobody in particular. */
  taxonomy(path: readonly string[] = [], options?: CallOptions): Promise<Taxonomy> {
    const query = new URLSearchParams(path.map((name) => ["path", name]));
    return this.#call({ method: "GET", path: `/v1/taxonomy?${query}` }, options);
  }

  /** Stores what users did; each event is stored once, however often it is sent. */
  sendEvents(events: readonly Event[], options?: CallOptions): Promise<EventsAnswer> {
    return this.#call({ method: "POST", path: "/v1/events", body: { events } }, options);
  }

  /** What the state holds of a user. */
  user(userId: string, options?: CallOptions): Promise<User> {
    return this.#call({ method: "GET", path: addressOf("users", userId) }, options);
  }

  /** What the event log holds of a user; a large log takes its time: give such a client more. */
  logged(userId: string, options?: CallOptions): Promise<readonly LogRecord[]> {
    const query = new URLSearchParams({ user_id: userId });
    return this.#call({ method: "GET", path: `/v1/event-log?${query}` }, options);
  }

  /** Erases everything stored of a user. */
  eraseUser(userId: string, options?: CallOptions): Promise<void> {
    return this.#call({ method: "DELETE", path: addressOf("users", userId) }, options);
  }

  /** An item of the catalogue, and as many of the items most like it. */
  item(itemId: string, { neighbours, ...options }: ItemOptions = {}): Promise<Item> {
    const query = neighbours === undefined ? "" : `?neighbours=${neighbours}`;
    return this.#call({ method: "GET", path: addressOf("items", itemId) + query }, options);
  }

  /** Puts items into the catalogue, or in the place of those of the same ids. */
  putItems(items: readonly ItemEdit[], options?: CallOptions): Promise<CatalogueEdit> {
    return this.#call({ method: "PUT", path: "/v1/items", body: { items } }, options);
  }

  /** Recommends an item no more, until it is shown again. */
  hideItem(itemId: string, options?: CallOptions): Promise<CatalogueEdit> {
    return this.#call({ method: "POST", path: `${addressOf("items", itemId)}:hide` }, options);
  }

  /** Takes back that an item is hidden. */
  showItem(itemId: string, options?: CallOptions): Promise<CatalogueEdit> {
    return this.#call({ method: "POST", path: `${addressOf("items", itemId)}:show` }, options);
  }

  /** Tells an item's stock and the time in which it can be had. */
  setAvailability(itemId: string, offer: Offer, options?: CallOptions): Promise<CatalogueEdit> {
    const path = `${addressOf("items", itemId)}:availability`;
    return this.#call({ method: "POST", path, body: offer }, options);
  }

  /** Takes all edits of an item back: it is as the bundle has it, or gone. */
  resetItem(itemId: string, options?: CallOptions): Promise<CatalogueEdit> {
    return this.#call({ method: "POST", path: `${addressOf("items", itemId)}:reset` }, options);
  }

  /** What is in service, and its limits. */
  info(options?: CallOptions): Promise<Info> {
    return this.#call({ method: "GET", path: "/v1/info" }, options);
  }

  /** What the client's key may do. */
  access(options?: CallOptions): Promise<Access> {
    return this.#call({ method: "GET", path: "/v1/access" }, options);
  }

  /** Which bundle has which role, and which ones there are; this and the next are an admin key's. */
  bundles(options?: CallOptions): Promise<Bundles> {
    return this.#call({ method: "GET", path: "/v1/bundles" }, options);
  }

  /** Has a bundle open and verified on every replica; it serves nobody yet. */
  loadBundle(name: string, options?: CallOptions): Promise<Bundles> {
    return this.#call({ method: "POST", path: `${addressOf("bundles", name)}:load` }, options);
  }

  /** Gives a bundle a role: everybody, some users, or compared and not served. */
  activateBundle(
    name: string,
    request: ActivateRequest = {},
    options?: CallOptions,
  ): Promise<Bundles> {
    const path = `${addressOf("bundles", name)}:activate`;
    return this.#call({ method: "POST", path, body: request }, options);
  }

  /** What an open bundle would recommend; shown to nobody, counted nowhere. */
  previewBundle(
    name: string,
    request: RecommendRequest = {},
    options?: CallOptions,
  ): Promise<Preview> {
    const path = `${addressOf("bundles", name)}:preview`;
    return this.#call({ method: "POST", path, body: request }, options);
  }

  /** Takes a bundle's role away; what was active before serves again. */
  rollBack(name: string, options?: CallOptions): Promise<Bundles> {
    const path = `${addressOf("bundles", name)}:rollback`;
    return this.#call({ method: "POST", path, isRepeatable: false }, options);
  }

  async #call<Answer>(call: Call, { signal }: CallOptions = {}): Promise<Answer> {
    const giveUpAt = Date.now() + this.#patience.deadlineMs;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#attempt<Answer>(call, signal);
      } catch (error) {
        if (!(error instanceof CofineError) || !mayRepeat(call, error)) throw error;
        const pauseMs = pauseAfter(attempt, error.retryAfterMs);
        if (attempt >= this.#patience.attemptsMax || Date.now() + pauseMs > giveUpAt) throw error;
        await pause(pauseMs, signal);
      }
    }
  }

  async #attempt<Answer>(
    { method, path, body }: Call,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    signal?.throwIfAborted();
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    signal?.addEventListener("abort", abort);
    const timer = setTimeout(abort, this.#patience.timeoutMs);
    try {
      const response = await fetch(this.#url + path, {
        method,
        signal: attempt.signal,
        headers: {
          ...this.#headers,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw refusal(response, text);
      return answerOf(response, text) as Answer;
    } catch (error) {
      if (error instanceof ProblemError) throw error;
      signal?.throwIfAborted();
      const what = attempt.signal.aborted ? `none within ${this.#patience.timeoutMs} ms` : error;
      throw new UnreachableError(`the service did not answer: ${what}`, { cause: error });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}

function addressOf(kind: "users" | "items" | "bundles", name: string): string {
  return `/v1/${kind}/${encodeURIComponent(name)}`;
}

function mayRepeat(call: Call, error: CofineError): boolean {
  if (call.isRepeatable !== false) return error.isRetryable;
  return error instanceof ProblemError && error.status === TOO_MANY_REQUESTS;
}

function answerOf(response: Response, text: string): unknown {
  if (!response.headers.get("content-type")?.startsWith("application/x-ndjson")) {
    return text === "" ? undefined : JSON.parse(text);
  }
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
}

function refusal(response: Response, text: string): ProblemError {
  const isProblem = response.headers.get("content-type")?.startsWith("application/problem+json");
  const problem = isProblem ? (JSON.parse(text) as Problem) : undefined;
  const retryAfter = response.headers.get("retry-after") ?? "";
  const retryAfterMs = /^\d+$/.test(retryAfter) ? Number(retryAfter) * 1_000 : undefined;
  return new ProblemError(response.status, problem, retryAfterMs);
}

function pauseAfter(attempt: number, retryAfterMs = 0): number {
  return Math.max(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random()), retryAfterMs);
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", end);
      resolve();
    }, ms);
    signal?.addEventListener("abort", end, { once: true });
  });
}
