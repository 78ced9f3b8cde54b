"""Ways of decoding are compared through the code that serves them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from model.diffusion_decoder import DiffusionGraphs
from model.diffusion_search import Unmasking
from model.errors import ConfigError
from model.query import Query
from model.recommender import Recommender
from model.strings import StringTable
from model.training.evaluation.category_tree import category_tree
from model.training.evaluation.decoding import DecodingConfig, compare_decoding, same_codes, ways
from model.training.evaluation.decoding_report import read_report, write_report
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
    told = (tmp_path / "table.md").read_text(encoding="utf-8")
    for row in rows:
        assert row.diversity["distinct_categories"] >= 1
        assert 0 < row.diversity["intra_list_distance"] <= 1
        assert row.milliseconds > 0
        assert row.name in told
    assert "The same codes in all bundles" in told
    for level in category_tree(bundle).levels:
        assert f"| {level.name} | {level.nodes} |" in told
    for picture in ("table.png", "table-categories.png"):
        assert picture in told
        with Image.open(tmp_path / picture) as opened:
            assert opened.format == "PNG"


def test_where_all_codes_are_taken_in_order_there_is_one_way(diffusion_bundle: Path) -> None:
    bundle = Bundle.open(diffusion_bundle)
    assert isinstance(bundle.graphs, DiffusionGraphs)
    in_order = bundle.graphs.by(Unmasking(len(bundle.manifest.levels)))

    names = [way.name for way in ways(replace(bundle, graphs=in_order), 0)]

    assert names == ["diffusion left to right"]
    assert len(list(ways(bundle, 0))) == 6


def test_what_is_measured_already_is_kept(diffusion_bundle: Path, tmp_path: Path) -> None:
    prepared, output = diffusion_bundle.parent / "run" / "prepared", tmp_path / "table.md"
    config = DecodingConfig(users=3, beam_width=10)
    first = compare_decoding(config, [diffusion_bundle], prepared, output)
    # As an interruption after the fourth way would have left it, with a time that none takes.
    report = read_report(tmp_path / "table.json")
    assert report is not None
    report.rows = [row.model_copy(update={"milliseconds": 1e6}) for row in report.rows[:4]]
    write_report(report, output)

    again = compare_decoding(config, [diffusion_bundle], prepared, output)
    other = compare_decoding(
        config.model_copy(update={"beam_width": 12}), [diffusion_bundle], prepared, output
    )

    assert [row.milliseconds == 1e6 for row in again] == [True] * 4 + [False] * 2
    assert [row.metrics for row in again] == [row.metrics for row in first]
    assert not any(row.milliseconds == 1e6 for row in other)


def test_another_file_in_the_way_of_the_report_is_refused(
    diffusion_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "table.json").write_text('{"rows": []}')
    prepared = diffusion_bundle.parent / "run" / "prepared"

    with pytest.raises(ConfigError, match=r"table\.json is not what .* delete it"):
        compare_decoding(DecodingConfig(), [diffusion_bundle], prepared, tmp_path / "table.md")


def test_bundles_of_different_catalogues_are_refused() -> None:
    bundle = toy_bundle()
    fewer = replace(bundle.catalog, item_ids=StringTable.build(list("abcdefghijkX")))

    assert same_codes([bundle, toy_bundle(seed=1)])
    with pytest.raises(ConfigError, match="do not hold the same items"):
        same_codes([bundle, replace(bundle, catalog=fewer)])


def test_an_autoregressive_bundle_has_one_way() -> None:
    assert [way.name for way in ways(toy_bundle(), 0)] == ["autoregressive"]
