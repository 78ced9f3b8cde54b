"""Items that training never saw, put over HTTP, are found as often as offline."""

from pathlib import Path

import pytest

from model.training.evaluation.cold import CUTOFF, cold_questions, evaluate_cold, read_new_items
from tests.end_to_end.service_process import ids, recommend, running_service


@pytest.mark.slow
def test_items_put_over_http_are_found_as_offline(cold_bundle: Path, tmp_path: Path) -> None:
    prepared = cold_bundle.parent / "run" / "prepared"
    expected = evaluate_cold(cold_bundle, prepared)
    items = [
        {
            **{"item_id": item.item_id, "title": item.title, "brand": item.brand},
            **{"description": item.description, "categories": [list(path) for path in item.paths]},
        }
        for item in read_new_items(prepared / "cold_items.parquet")
    ]
    found = []
    with (
        running_service(cold_bundle, tmp_path, deadline_ms=20_000) as service,
        service.client() as client,
    ):
        assert client.put("/v1/items", json={"items": items}).status_code == 200
        assert client.get("/v1/info").json()["items"] == expected.catalogue_items
        for question in cold_questions(prepared):
            answer = recommend(client, history=[*question.history], k=CUTOFF)
            found.append(question.target in ids(answer))

    assert len(found) == expected.cold_users
    assert sum(found) / len(found) == pytest.approx(expected.cold_recall)
    assert sum(found) / len(found) > expected.cold_popularity_recall
