"""What a request costs the service beside the search: processor time of each part.

    python -m tests.benchmarks.serving BUNDLE [--redis URL]

Times are of processor per call (median of rounds), so that other work on the machine hardly moves
them; only those beside a busy thread are of the clock. With --redis also what keeping the encoded
history there would cost.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis.asyncio
import uvloop

from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.transitions import EvidenceBiases
from model.types import IntArray
from service.__main__ import SWITCH_SECONDS
from service.app import create_app
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.routes.answers import json_answer
from service.routes.recommend import PATH, item_body
from service.schemas import RecommendAnswer, RecommendRequest
from service.serving import recommender_factory
from service.settings import load_settings
from service.user_state import Event, StateLimits
from tests.service.fakes import GatedRecommender, always

ROUNDS = 15
CALLS = 40
HISTORY = 10
LONG_HISTORY = 50
USER = "cofine-benchmark"
DEADLINE_SECONDS = 10.0

Work = Callable[[], Awaitable[object] | object]


async def microseconds(work: Work) -> float:
    """Processor time of one call."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            result = work()
            if isinstance(result, Awaitable):
                await result
        rounds.append((time.process_time() - started) / CALLS * 1e6)
    return float(np.median(rounds))


def asgi_request(app: Any, body: bytes) -> Work:
    """A POST of `body` to the application, with no server around it."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: object) -> None:
        return

    scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode()}

    def call() -> Awaitable[object]:
        # A request of its own each time: the framework writes into the scope.
        waiting = {**scope, "query_string": b"", "root_path": "", "headers": headers}
        once = iter([receive])

        async def receive_once() -> dict[str, object]:
            for each in once:
                return await each()
            await asyncio.Event().wait()  # the client stays
            raise AssertionError

        answered: Awaitable[object] = app(waiting, receive_once, send)
        return answered

    return call


def history(bundle: Bundle, length: int) -> IntArray:
    """Leaves from all over the catalogue."""
    leaves: IntArray = np.arange(length) * 917 % len(bundle.catalog)
    return leaves


def reading(bundle: Bundle, length: int) -> Work:
    """Putting the evidence after a history into the search tree, and taking it out again."""
    biases = EvidenceBiases(bundle.tree, bundle.transitions, bundle.manifest.score.evidence_weights)
    leaves = history(bundle, length)

    def read() -> None:
        with biases.after(leaves):
            return

    return read


async def measure(path: Path, redis_url: str | None) -> dict[str, float]:
    bundle = Bundle.open(path, threads=1)
    leaves = history(bundle, HISTORY)
    ids = [bundle.catalog.item_id(leaf) for leaf in leaves.tolist()]
    recommender = Recommender(bundle)
    h = recommender.encode(leaves)
    history_vectors = bundle.tree.item_vectors[leaves]
    found = recommender.recommend(Query(ids))
    items = [item_body(item, explain=False) for item in found.items]
    body = json.dumps({"history": ids, "k": 10}).encode()
    answer = RecommendAnswer(
        recommendation_id="0" * 32,
        bundle=bundle.bundle_id,
        variant="active",
        catalogue_version=0,
        items=items,
        degraded=None,
        certified=True,
        took_ms=1.0,
        unknown_history_items=0,
    )
    taken: dict[str, Work] = {
        "whole recommendation in the model, its history known": (
            lambda: recommender.recommend(Query(ids))
        ),
        "encoding the history where it is not known": lambda: bundle.graphs.encode(history_vectors),
        "of it, certifying": lambda: recommender.score.of_item_head(h),
        "of it, the evidence of transitions": reading(bundle, HISTORY),
        f"the same of {LONG_HISTORY} items": reading(bundle, LONG_HISTORY),
        "validating the request": lambda: RecommendRequest.model_validate_json(body),
        "item bodies": lambda: [item_body(item, explain=False) for item in found.items],
        "the answer as JSON": lambda: json_answer(answer),
        "the answer as JSON by the standard library": lambda: json.dumps(answer.model_dump()),
    }
    costs = {name: await microseconds(work) for name, work in taken.items()}
    for switch_seconds in (0.005, SWITCH_SECONDS):
        name = f"a recommendation beside a busy thread, switching after {switch_seconds * 1e3:g} ms"
        costs[name] = beside_a_busy_thread(recommender, Query(ids), switch_seconds)
    settings = load_settings(workers=1, queue_max_requests=1)
    app = create_app(settings, bundle, recommender_factory(bundle))
    async with app.router.lifespan_context(app):
        request = asgi_request(app, body)
        costs["a whole request, without the server"] = await microseconds(request)
    costs["a refused request, without the server"] = await measure_refusal(bundle, body)
    if redis_url is not None:
        costs |= await measure_redis(redis_url, h.astype(np.float16).tobytes())
        costs |= await measure_state(redis_url, ids)
    return costs


async def measure_refusal(bundle: Bundle, body: bytes) -> float:
    """One request is computed and does not end, one waits, and all others are too many."""
    busy = GatedRecommender()
    settings = load_settings(workers=1, queue_max_requests=1, deadline_ms=600_000)
    app = create_app(settings, bundle, always(busy))
    async with app.router.lifespan_context(app):
        inside = [asyncio.ensure_future(answered(asgi_request(app, body))) for _ in range(2)]
        await asyncio.to_thread(busy.entered.acquire)
        cost = await microseconds(asgi_request(app, body))
        busy.gate.set()
        await asyncio.gather(*inside)
    return cost


async def answered(work: Work) -> None:
    result = work()
    if isinstance(result, Awaitable):
        await result


def beside_a_busy_thread(recommender: Recommender, query: Query, switch_seconds: float) -> float:
    """Time of one recommendation, in us, while another thread never rests; not of processor."""
    stopped = threading.Event()

    def keep_busy() -> None:
        while not stopped.is_set():
            sum(range(100))

    before = sys.getswitchinterval()
    sys.setswitchinterval(switch_seconds)
    busy = threading.Thread(target=keep_busy)
    busy.start()
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter()
        recommender.recommend(query)
        taken.append(time.perf_counter() - started)
    stopped.set()
    busy.join()
    sys.setswitchinterval(before)
    return float(np.median(taken)) * 1e6


async def measure_redis(url: str, stored: bytes) -> dict[str, float]:
    async with redis.asyncio.from_url(url) as client:
        await client.set("cofine-benchmark", stored)
        read = await microseconds(lambda: client.get("cofine-benchmark"))
        write = await microseconds(lambda: client.set("cofine-benchmark", stored, ex=60))
        await client.delete("cofine-benchmark")
    return {"reading an encoded history from Redis": read, "writing it": write}


async def measure_state(url: str, ids: Sequence[str]) -> dict[str, float]:
    """What the two round trips of a known user's request cost this process."""
    patience = ConnectionLimits(socket_timeout_seconds=DEADLINE_SECONDS)
    store = RedisUserState(url, StateLimits(), Metrics(), patience)
    await store.start()
    events = [Event(item_id, item_id, place) for place, item_id in enumerate(ids)]
    await store.append(USER, events, deadline_seconds=DEADLINE_SECONDS)
    read = await microseconds(lambda: store.read(USER, deadline_seconds=DEADLINE_SECONDS))
    keep = await microseconds(
        lambda: store.keep_list(USER, "0" * 120, ids, deadline_seconds=DEADLINE_SECONDS)
    )
    await store.erase(USER, deadline_seconds=DEADLINE_SECONDS)
    await store.close()
    return {"reading a user's state from Redis": read, "keeping a list for a next page": keep}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--redis")
    given = parser.parse_args(arguments)
    costs = uvloop.run(measure(given.bundle, given.redis))
    lines = ["| part | time |", "|---|---|"]
    lines += [f"| {name} | {cost:.0f} us |" for name, cost in costs.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
