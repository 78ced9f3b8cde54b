/**
 * A client of a Cofine service for browsers, Node and other places that have `fetch`.
 *
 * Every call here may be repeated safely: recommending and reading change nothing, an event is known
 * by its id, an erasure is an erasure. So a call is tried again after a failed connection, a timeout
 * and the answers 429, 502, 503 and 504, after a random, growing pause or, where the service says
 * one, its Retry-After.
 */
import type { components } from "./schema.js";

type Schemas = components["schemas"];
/** The fields that a request must have, and those that the service has a default for. */
type Given<Body, Required extends keyof Body> = Pick<Body, Required> & Partial<Body>;

export type RecommendRequest = Partial<Schemas["RecommendRequest"]>;
export type Recommendation = Schemas["RecommendAnswer"];
export type RecommendedItem = Schemas["RecommendedItemBody"];
export type Event = Given<Schemas["EventBody"], "event_id" | "user_id" | "item_id">;
export type EventsAnswer = Schemas["EventsAnswer"];
export type User = Schemas["UserAnswer"];
export type Item = Schemas["ItemAnswer"];
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

const RETRYABLE_STATUSES: ReadonlySet<number> = new Set([429, 502, 503, 504]);
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
    return this.#call("POST", "/v1/recommend", request, options);
  }

  /** Stores what users did; each event is stored once, however often it is sent. */
  sendEvents(events: readonly Event[], options?: CallOptions): Promise<EventsAnswer> {
    return this.#call("POST", "/v1/events", { events }, options);
  }

  /** What is stored of a user. */
  user(userId: string, options?: CallOptions): Promise<User> {
    return this.#call("GET", `/v1/users/${encodeURIComponent(userId)}`, undefined, options);
  }

  /** Erases everything stored of a user. */
  eraseUser(userId: string, options?: CallOptions): Promise<void> {
    return this.#call("DELETE", `/v1/users/${encodeURIComponent(userId)}`, undefined, options);
  }

  /** An item of the catalogue. */
  item(itemId: string, options?: CallOptions): Promise<Item> {
    return this.#call("GET", `/v1/items/${encodeURIComponent(itemId)}`, undefined, options);
  }

  async #call<Answer>(
    method: string,
    path: string,
    body: unknown,
    { signal }: CallOptions = {},
  ): Promise<Answer> {
    const giveUpAt = Date.now() + this.#patience.deadlineMs;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#attempt<Answer>(method, path, body, signal);
      } catch (error) {
        if (!(error instanceof CofineError) || !error.isRetryable) throw error;
        const pauseMs = pauseAfter(attempt, error.retryAfterMs);
        if (attempt >= this.#patience.attemptsMax || Date.now() + pauseMs > giveUpAt) throw error;
        await pause(pauseMs, signal);
      }
    }
  }

  async #attempt<Answer>(
    method: string,
    path: string,
    body: unknown,
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
      return (text === "" ? undefined : JSON.parse(text)) as Answer;
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
