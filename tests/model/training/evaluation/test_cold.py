"""Items held out of a shop are met again as new ones."""

import json
from pathlib import Path

import polars as pl
import pytest

from model.errors import StageError
from model.training.evaluation.cold import evaluate_cold


@pytest.mark.slow
def test_held_out_items_are_found_again(any_cold_bundle: Path, tmp_path: Path) -> None:
    prepared = any_cold_bundle.parent / "run" / "prepared"
    cold = set(pl.read_parquet(prepared / "cold_items.parquet")["item_id"])
    assert len(cold) == 40
    assert not cold & set(pl.read_parquet(prepared / "items.parquet")["item_id"])
    assert not cold & set(pl.read_parquet(prepared / "events.parquet")["item_id"])
    assert set(pl.read_parquet(prepared / "cold_events.parquet")["item_id"]) <= cold

    found = evaluate_cold(any_cold_bundle, prepared, users=100)

    assert (found.cold_items, found.catalogue_items) == (40, 200)
    assert found.cold_users < found.warm_users == 100
    # Nobody has bought a held-out item, so popularity finds none: chance is what there is to beat.
    assert found.cold_popularity_recall == 0
    assert found.cold_chance_recall == 10 / 200
    assert found.cold_recall > 2 * found.cold_chance_recall
    assert found.cold_head_recall > 2 * found.cold_chance_recall
    assert 0 < found.warm_ndcg_after <= 1
    assert json.loads((prepared.parent / "cold.json").read_text()) == found.model_dump()
    with pytest.raises(StageError, match="set cold_items"):
        evaluate_cold(any_cold_bundle, tmp_path)
