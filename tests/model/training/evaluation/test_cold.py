"""Items held out of a shop are met again as new ones."""

import json
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from model.errors import StageError
from model.training.config import read_run_config
from model.training.evaluation.cold import evaluate_cold
from model.training.pipeline import run_pipeline
from model.training.synthesis.synthesize import SynthesizeConfig, synthesize

SHOP = """
preset = "tiny"
workspace = "run"
bundle = "bundle"

[prepare]
items = "shop/items.parquet"
events = "shop/events.parquet"
cold_items = 0.2

[train]
epochs = 3

[evaluate]
exhaustive_users = 0
users = 20
"""


@pytest.mark.slow
def test_held_out_items_are_found_again(tmp_path: Path) -> None:
    synthesize(SynthesizeConfig(items=200, users=300, seed=2), tmp_path / "shop")
    (tmp_path / "run.toml").write_text(SHOP, encoding="utf-8")
    run_pipeline(read_run_config(tmp_path / "run.toml"), Console(quiet=True))
    prepared = tmp_path / "run" / "prepared"
    cold = set(pl.read_parquet(prepared / "cold_items.parquet")["item_id"])
    assert len(cold) == 40
    assert not cold & set(pl.read_parquet(prepared / "items.parquet")["item_id"])
    assert not cold & set(pl.read_parquet(prepared / "events.parquet")["item_id"])
    assert set(pl.read_parquet(prepared / "cold_events.parquet")["item_id"]) <= cold

    found = evaluate_cold(tmp_path / "bundle", prepared)

    assert (found.cold_items, found.catalogue_items) == (40, 200)
    assert found.cold_users + found.warm_users <= 300
    assert found.cold_recall > found.cold_popularity_recall
    assert 0 < found.warm_ndcg_after <= 1
    assert json.loads((tmp_path / "run" / "cold.json").read_text()) == found.model_dump()
    (prepared / "cold_items.parquet").unlink()
    with pytest.raises(StageError, match="set cold_items"):
        evaluate_cold(tmp_path / "bundle", prepared)
