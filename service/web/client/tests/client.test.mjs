// Run by tests/end_to_end/test_web_client.py: CLIENT names the built module, SERVICE a live service,
// KEYED_SERVICE one that asks for keys and has the bundles "first" (active) and "second", KEY a
// publishable key of it, TOKEN one for "visitor", ADMIN_KEY and READ_KEY keys of these scopes; ROUTES
// is a JSON list of what the OpenAPI document has, as "GET /v1/items/{item_id}".
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

const { Client, ProblemError, UnreachableError } = await import(process.env.CLIENT);
const live = new Client(`${process.env.SERVICE}/`);

/** A server that answers one request after the other as `answers` say; "hang" never answers. */
async function scripted(answers, use) {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    const answer = answers[seen.length - 1];
    if (answer === "drop") request.socket.destroy();
    else if (answer !== "hang") response.writeHead(answer.status, answer.headers).end(answer.body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await use(`http://127.0.0.1:${server.address().port}`, seen);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const ok = { status: 200, body: '{"items": []}' };
const busy = { status: 503, headers: { "Retry-After": "0" } };

test("shows, clicks, dislikes, reads and erases", async () => {
  const userId = "web/ü 1";
  const shown = await live.recommend({ user_id: userId, k: 3 });
  assert.equal(shown.items.length, 3);
  const [first, second] = shown.items;
  const event = { user_id: userId, recommendation_id: shown.recommendation_id };
  const answer = await live.sendEvents([
    { ...event, event_id: "1", item_id: first.item_id },
    { ...event, event_id: "2", item_id: second.item_id, type: "dislike" },
  ]);
  assert.deepEqual(answer.results.map((each) => each.attribution), ["attributed", "attributed"]);
  const user = await live.user(userId);
  assert.deepEqual(user.history.map((entry) => entry.item_id), [first.item_id]);
  assert.deepEqual(user.disliked, [second.item_id]);
  assert.equal((await live.item(first.item_id)).title, first.title);
  assert.equal(await live.eraseUser(userId), undefined);
  assert.equal((await live.user(userId)).events, 0);
});

test("a refusal carries the problem and is not repeated", async () => {
  const refusal = await live.recommend({ k: 0 }).catch((error) => error);
  assert.ok(refusal instanceof ProblemError);
  assert.equal(refusal.status, 422);
  assert.equal(refusal.problem.errors[0].pointer, "#/k");
  assert.equal(refusal.isRetryable, false);
});

test("a page shows its key and its visitor's token", async () => {
  const { KEYED_SERVICE: url, KEY: key, TOKEN: userToken } = process.env;
  const request = { user_id: "visitor", k: 3 };
  const page = new Client(url, { key, userToken });
  assert.equal((await page.recommend(request)).items.length, 3);
  for (const options of [{}, { key }, { key: "another", userToken }]) {
    await assert.rejects(new Client(url, options).recommend(request), { status: 401 });
  }
  await assert.rejects(page.recommend({ user_id: "another" }), { status: 403 });
});

test("tries again after a failed connection and while the service is busy", async () => {
  await scripted(["drop", busy, ok], async (url, seen) => {
    assert.deepEqual(await new Client(url).recommend({}), { items: [] });
    assert.deepEqual(seen, Array(3).fill("POST /v1/recommend"));
  });
});

test("every route has a method that sends what the route wants", async () => {
  const routes = {
    "POST /v1/recommend": (client) => client.recommend({}),
    "POST /v1/recommend:batch": (client) => client.recommendBatch([{}]),
    "POST /v1/explore": (client) => client.explore({}),
    "GET /v1/taxonomy": (client) => client.taxonomy(),
    "POST /v1/events": (client) => client.sendEvents([]),
    "GET /v1/users/{user_id}": (client) => client.user("x"),
    "DELETE /v1/users/{user_id}": (client) => client.eraseUser("x"),
    "GET /v1/event-log": (client) => client.logged("x"),
    "GET /v1/items/{item_id}": (client) => client.item("x", { neighbours: 8 }),
    "PUT /v1/items": (client) => client.putItems([{ item_id: "x" }]),
    "POST /v1/items/{item_id}:hide": (client) => client.hideItem("x"),
    "POST /v1/items/{item_id}:show": (client) => client.showItem("x"),
    "POST /v1/items/{item_id}:availability": (client) => client.setAvailability("x", { stock: 0 }),
    "POST /v1/items/{item_id}:reset": (client) => client.resetItem("x"),
    "GET /v1/info": (client) => client.info(),
    "GET /v1/access": (client) => client.access(),
    "GET /v1/bundles": (client) => client.bundles(),
    "POST /v1/bundles/{name}:load": (client) => client.loadBundle("x"),
    "POST /v1/bundles/{name}:activate": (client) => client.activateBundle("x"),
    "POST /v1/bundles/{name}:preview": (client) => client.previewBundle("x"),
    "POST /v1/bundles/{name}:rollback": (client) => client.rollBack("x"),
  };
  assert.deepEqual(Object.keys(routes).sort(), JSON.parse(process.env.ROUTES).sort());
  for (const [route, call] of Object.entries(routes)) {
    await scripted([ok], async (url, seen) => {
      await call(new Client(url));
      assert.deepEqual(seen.map((each) => each.replace(/\?.*/, "")), [route.replace(/\{\w+\}/, "x")]);
    });
  }
});

test("narrows from the whole tree to items, and answers a batch", async () => {
  const { KEYED_SERVICE: url, READ_KEY: key } = process.env;
  const reader = new Client(url, { key });
  const { items, decoder } = await reader.info();
  const tree = await reader.taxonomy();
  assert.equal(tree.items_here, items);
  const [best] = (await reader.recommend({ k: 2 })).items;
  const { neighbours } = await reader.item(best.item_id, { neighbours: 3 });
  assert.equal(neighbours.length, 3);
  assert.ok(neighbours.every((each) => each.item_id !== best.item_id));
  const [place] = tree.choices;
  assert.equal((await reader.taxonomy(place.path)).items_here, place.items);
  if (decoder === "diffusion") {
    // It has no probability per level.
    await assert.rejects(reader.explore({ k: 2 }), { status: 422 });
  } else {
    const broad = await reader.explore({ user_id: "nobody", k: 2 });
    assert.equal(broad.items_here, items);
    const [chosen] = broad.choices;
    const narrow = await reader.explore({ path: chosen.path, k: 2 });
    assert.equal(narrow.items_here, chosen.items);
  }
  const { results } = await reader.recommendBatch([{ k: 2 }, { path: ["nowhere"] }]);
  assert.equal(results[0].answer.items.length, 2);
  assert.equal(results[1].problem.code, "invalid_request");
});

test("an operator puts a bundle in service and takes it out", async () => {
  const { KEYED_SERVICE: url, ADMIN_KEY: key } = process.env;
  const operator = new Client(url, { key });
  assert.deepEqual((await operator.access()).scopes, ["admin"]);
  assert.deepEqual((await operator.bundles()).bundles.map((each) => each.name), ["first", "second"]);
  assert.equal((await operator.loadBundle("second")).rollout.loaded.name, "second");
  assert.equal((await operator.previewBundle("second", { k: 2 })).items.length, 2);
  const request = { role: "canary", percent: 20 };
  assert.equal((await operator.activateBundle("second", request)).rollout.canary_percent, 20);
  assert.equal((await operator.activateBundle("second")).rollout.active.name, "second");
  assert.equal((await operator.rollBack("second")).rollout.active.name, "first");
});

test("what may have been done is not repeated where that is not safe", async () => {
  for (const obstacle of ["drop", busy]) {
    await scripted([obstacle], async (url, seen) => {
      await assert.rejects(new Client(url).rollBack("night"));
      assert.equal(seen.length, 1);
    });
  }
  const refused = { status: 429, headers: { "Retry-After": "0" } };
  await scripted([refused, ok], async (url, seen) => {
    await new Client(url).rollBack("night");
    assert.equal(seen.length, 2);
  });
});

test("what is logged comes line by line", async () => {
  const lines = '{"kind": "event", "item_id": "a\u2028b"}\n{"kind": "impression"}\n';
  const headers = { "Content-Type": "application/x-ndjson" };
  await scripted([{ status: 200, headers, body: lines }], async (url) => {
    const logged = await new Client(url).logged("x");
    assert.deepEqual(logged, [{ kind: "event", item_id: "a\u2028b" }, { kind: "impression" }]);
  });
  assert.deepEqual(await live.logged("nobody"), []);
});

test("gives up after as many attempts as it may make", async () => {
  await scripted([busy, busy, busy], async (url, seen) => {
    const error = await new Client(url, { attemptsMax: 2 }).item("x").catch((each) => each);
    assert.ok(error instanceof ProblemError);
    assert.equal(error.problem, undefined);
    assert.equal(seen.length, 2);
  });
});

test("does not wait longer than it may", async () => {
  const later = { status: 429, headers: { "Retry-After": "3600" } };
  await scripted([later], async (url, seen) => {
    const error = await new Client(url).item("x").catch((each) => each);
    assert.equal(error.retryAfterMs, 3_600_000);
    assert.equal(seen.length, 1);
  });
});

test("an answer that does not come in time is no answer", async () => {
  await scripted(["hang", ok], async (url, seen) => {
    await new Client(url, { timeoutMs: 50 }).item("x");
    assert.equal(seen.length, 2);
  });
  await scripted(["hang"], async (url) => {
    const once = new Client(url, { timeoutMs: 50, attemptsMax: 1 });
    await assert.rejects(once.item("x"), UnreachableError);
  });
});

test("an aborted call ends at once, also between two attempts", async () => {
  await scripted(["hang"], async (url, seen) => {
    const leaving = new AbortController();
    const call = new Client(url).item("x", { signal: leaving.signal });
    while (seen.length === 0) await new Promise(setImmediate);
    leaving.abort(new Error("left the page"));
    await assert.rejects(call, /left the page/);
  });
  const waits = { status: 503, headers: { "Retry-After": "10" } };
  await scripted([waits], async (url, seen) => {
    const leaving = new AbortController();
    const call = new Client(url).item("x", { signal: leaving.signal });
    while (seen.length === 0) await new Promise(setImmediate);
    setTimeout(() => leaving.abort(new Error("left the page")), 100);
    await assert.rejects(call, /left the page/);
  });
  await assert.rejects(live.recommend({}, { signal: AbortSignal.abort() }), { name: "AbortError" });
});
