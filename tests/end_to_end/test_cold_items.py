"""Items that training never saw, put over HTTP, are found as often as offline."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from model.training.evaluation.cold import CUTOFF, cold_questions, evaluate_cold, read_new_items
from tests.contract.redis_server import running_redis
from tests.end_to_end.service_process import ids, recommend, running_service, wait_until

USERS = 100
"""More than there are whose next item is a held-out one; bounds the others."""
PATIENT = {
    "deadline_ms": 20_000,
    "state_read_deadline_ms": 5_000,
    "state_write_deadline_ms": 5_000,
}


@pytest.mark.slow
def test_items_put_on_one_replica_are_found_on_another_as_offline(
    any_cold_bundle: Path, tmp_path: Path
) -> None:
    prepared = any_cold_bundle.parent / "run" / "prepared"
    expected = evaluate_cold(any_cold_bundle, prepared, users=USERS)
    items = [
        {
            **{"item_id": item.item_id, "title": item.title, "brand": item.brand},
            **{"description": item.description, "categories": [list(path) for path in item.paths]},
        }
        for item in read_new_items(prepared / "cold_items.parquet")
    ]
    found = []
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(tmp_path))
        first, second = (
            stack.enter_context(
                running_service(any_cold_bundle, tmp_path, state_url=redis.url, **PATIENT)
            )
            for _ in range(2)
        )
        put, client = (stack.enter_context(service.client()) for service in (first, second))
        assert put.put("/v1/items", json={"items": items}).status_code == 200
        wait_until(
            lambda: client.get("/v1/info").json()["items"] == expected.catalogue_items,
            "the other replica has the items",
        )
        for question in cold_questions(prepared):
            answer = recommend(client, history=[*question.history], k=CUTOFF)
            found.append(question.target in ids(answer))

    assert len(found) == expected.cold_users
    assert sum(found) / len(found) == pytest.approx(expected.cold_recall)
    assert sum(found) / len(found) > 2 * expected.cold_chance_recall
