"""Ways of decoding are compared through the code that serves them."""

from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle
from model.recommender import Query, Recommender
from model.training.evaluation.decoding import DecodingConfig, compare_decoding, ways
from model.training.evaluation.metrics import rank_in_list, summary
from model.training.evaluation.task import Choice, read_task
from tests.model.training.evaluation.toy_bundle import toy_bundle


def test_every_order_is_measured_with_and_without_the_penalty(
    diffusion_bundle: Path, tmp_path: Path
) -> None:
    prepared = diffusion_bundle.parent / "run" / "prepared"
    config = DecodingConfig(users=15, beam_width=50)

    rows = compare_decoding(config, [diffusion_bundle], prepared, tmp_path / "table.md")

    orders = ("by confidence", "left to right", "in random order")
    names = [f"diffusion {order}{end}" for order in orders for end in ("", " + penalty")]
    assert [row.name for row in rows] == names
    bundle = Bundle.open(diffusion_bundle)
    recommender, ranks = Recommender(bundle), []
    task = read_task(prepared, bundle.catalog, Choice("test", 15, 0, 0.2))
    for history, target in zip(task.leaves, task.targets.tolist(), strict=True):
        ids = [bundle.catalog.item_id(int(leaf)) for leaf in history]
        items = recommender.recommend(Query(ids, k=50)).items
        leaves = np.array([bundle.catalog.known_leaf(item.item_id) for item in items])
        ranks.append(rank_in_list(leaves, target))
    assert rows[0].metrics == pytest.approx(summary(np.array(ranks)))
    for row in rows:
        assert row.diversity["distinct_categories"] >= 1
        assert 0 < row.diversity["intra_list_distance"] <= 1
        assert row.milliseconds > 0
        assert row.name in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_an_autoregressive_bundle_has_one_way() -> None:
    assert [way.name for way in ways(toy_bundle(), 0)] == ["autoregressive"]
