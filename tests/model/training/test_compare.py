import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from model.bundle import Bundle
from model.errors import ConfigError
from model.quantizer_files import read_quantizers
from model.quantizers import assign
from model.tokens import levels_from_json
from model.training.compare import Combination, compare, read_combinations
from model.training.comparison import (
    ColdOutcome,
    Comparison,
    Outcome,
    Ranking,
    mark,
    markdown,
)
from model.training.embedding.text_encoder import PACKAGED_MODEL, missing_packages
from model.training.evaluation.evaluate import GENERATOR, SERVED
from model.training.synthesis.synthesize import SynthesizeConfig, synthesize
from model.training.tokenizers.tokenize import read_features
from model.types import AnyArray
from tests.required import skip_for_want_of
from tests.research_data import PROJECT

TOML = """
workspace = "runs"
preset = "tiny"
seeds = [0]

[datasets.shop]
synthesize = { items = 100, users = 80, seed = 1 }

[methods.kmeans]
method = "kmeans"

[methods.random]
method = "random"

[tokenize]
codes = 16

[train]
width = 8
epochs = 1
validation_users = 20

[evaluate]
exhaustive_users = 0
users = 40
"""


@pytest.mark.slow
def test_every_method_is_run_once_on_shared_stages(tmp_path: Path) -> None:
    path = tmp_path / "compare.toml"
    path.write_text(TOML, encoding="utf-8")

    found = compare(path, Console(quiet=True))

    assert [(one.dataset, one.method) for one in found.outcomes] == [
        ("shop", "kmeans"),
        ("shop", "random"),
    ]
    kmeans, random = found.outcomes
    assert kmeans.codes_used.keys() != random.codes_used.keys()
    assert all(
        0 <= one.collision_rate <= 1 and one.ranking(SERVED).ndcg > 0 for one in found.outcomes
    )
    written = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    assert Comparison.model_validate(written) == found
    assert (tmp_path / "runs" / "comparison.png").stat().st_size > 1000
    assert (tmp_path / "runs" / "shop" / "embedded" / "meta.json").is_file()
    assert not (tmp_path / "runs" / "shop" / "kmeans" / "seed-0" / "embedded").exists()

    checkpoint = tmp_path / "runs" / "shop" / "random" / "seed-0" / "trained" / "best.ckpt"
    made = checkpoint.stat().st_mtime_ns
    # As after an interruption: the stage's own seconds are those of its last attempt.
    stamp = tmp_path / "runs" / "shop" / "random" / "seed-0" / "stages" / "train.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"seconds": 0.1}))
    assert compare(path, Console(quiet=True)) == found
    assert checkpoint.stat().st_mtime_ns == made


TWO_SHOPS = f"""
workspace = "runs"
preset = "tiny"

[datasets.first]
items = "first/items.parquet"
events = "first/events.parquet"
cold_items = 0.2

[datasets.second]
items = "second/items.parquet"
events = "second/events.parquet"

[methods.kmeans]
method = "kmeans"
train = {{ positions = false, level_layers = false }}

[methods.kmeans-of-first]
fitted_on = "first/kmeans"

[embed]
model = "{PACKAGED_MODEL}"

[tokenize]
codes = 16

[train]
width = 8
epochs = 1
validation_users = 20

[evaluate]
exhaustive_users = 0
users = 40
"""


def codes_by_stage(workspace: Path) -> AnyArray:
    codes: AnyArray = np.load(workspace / "tokenized" / "codes.npy")
    return codes


def codes_by_bundle(combination: Combination) -> AnyArray:
    """The codes that what the bundle carries gives to the catalogue."""
    bundle, stages = combination.config.bundle, combination.stages()
    items, _ = read_features(combination.config.tokenize, stages.prepared, stages.embedded)
    levels = levels_from_json(json.loads((bundle / "levels.json").read_text()))
    return assign(read_quantizers(bundle), levels, items)


@pytest.mark.slow
def test_codebooks_of_one_shop_encode_another_and_new_items_are_measured(tmp_path: Path) -> None:
    missing = missing_packages(PACKAGED_MODEL)
    if missing:
        skip_for_want_of(PACKAGED_MODEL, f"pip install {' '.join(missing)}")
    for seed, name in enumerate(("first", "second"), 1):
        synthesize(SynthesizeConfig(items=100, users=120, seed=seed), tmp_path / name)
    path = tmp_path / "compare.toml"
    path.write_text(TWO_SHOPS, encoding="utf-8")

    found = compare(path, Console(quiet=True))

    assert [(one.dataset, one.method) for one in found.outcomes] == [
        ("first", "kmeans"),
        ("second", "kmeans"),
        ("second", "kmeans-of-first"),
    ]
    first, second, foreign = (
        tmp_path / "runs" / one.dataset / one.method / "seed-0" for one in found.outcomes
    )
    for book in ("title", "description", "collaborative"):
        own, taken, given = (
            np.load(folder / "tokenized" / "codebooks" / f"{book}.npy")
            for folder in (second, foreign, first)
        )
        assert np.array_equal(taken, given)
        assert not np.array_equal(own, given)
    assert len(Bundle.open(foreign / "bundle").catalog) == 100
    assert np.array_equal(codes_by_bundle(read_combinations(path)[2]), codes_by_stage(foreign))
    assert found.outcomes[2].codes_used["title"] > 1
    assert found.outcomes[2].ranking(SERVED).ndcg > 0
    assert [one.cold is not None for one in found.outcomes] == [True, False, False]
    measured = json.loads((first / "cold.json").read_text())
    assert measured["cold_items"] == 20
    cold = found.outcomes[0].cold
    assert cold is not None
    assert cold.head_recall == measured["cold_head_recall"]
    assert cold.chance_recall == measured["cold_chance_recall"] == 10 / 100
    assert measured["warm_users"] <= 40
    text = (tmp_path / "runs" / "comparison.md").read_text()
    assert "lost to the new" in text

    made = (first / "cold.json").stat().st_mtime_ns
    assert compare(path, Console(quiet=True)) == found
    assert (first / "cold.json").stat().st_mtime_ns == made


def test_codebooks_of_another_data_set_must_be_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "compare.toml"
    path.write_text(TOML + '[methods.other]\nfitted_on = "toys/kmeans"\n', encoding="utf-8")

    with pytest.raises(ConfigError, match="'toys/kmeans' must be DATASET/METHOD"):
        compare(path, Console(quiet=True))


def test_a_method_may_be_trained_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "compare.toml"
    own = "[methods.flat]\ntrain = { positions = false }\n"
    path.write_text(TOML + own, encoding="utf-8")

    kmeans, _, flat = read_combinations(path)

    assert (kmeans.config.train.positions, flat.config.train.positions) == (True, False)
    assert kmeans.config.train.width == flat.config.train.width == 8
    assert kmeans.config.tokenize == flat.config.tokenize
    path.write_text(TOML + "[methods.flat]\ntrain = 8\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"methods\.flat\.train must be a table.*got 8"):
        read_combinations(path)


ONE = Outcome(
    dataset="shop",
    method="opq",
    seed=3,
    collision_rate=0.125,
    codes_used={"category": 4, "code_1": 16},
    rankings=(
        Ranking(name=GENERATOR, seen_masked=True, recall=0.2, ndcg=0.1, lost=0.01),
        Ranking(name=SERVED, seen_masked=True, recall=0.3, ndcg=0.2, lost=None),
        Ranking(name=SERVED, seen_masked=False, recall=0.25, ndcg=0.15, lost=None),
    ),
    fit_seconds=1.2,
    train_seconds=60,
)


def test_an_unfinished_table_says_so() -> None:
    text = markdown(Comparison(planned=2, outcomes=[ONE]))

    assert "1 of 2 combinations are missing" in text
    assert "| shop | opq | 3 | 12.5% | 4 16 | 0.1000 | 0.3000 | 0.2000 | 1 | 60 |" in text
    assert "missing" not in markdown(Comparison(planned=1, outcomes=[ONE]))


def test_several_seeds_have_a_mean() -> None:
    generator, *served = ONE.rankings
    better = (
        generator.model_copy(update={"lost": 0.03}),
        *(each.model_copy(update={"ndcg": 2 * each.ndcg}) for each in served),
    )
    other = ONE.model_copy(update={"seed": 4, "rankings": better, "train_seconds": 80.0})
    alone = ONE.model_copy(update={"method": "simcit"})

    text = markdown(Comparison(planned=3, outcomes=[ONE, other, alone]))

    mean = "| shop | opq | mean of 2 | 12.5% |  | 0.1000 | 0.3000 | 0.3000 | 1 | 70 |"
    assert text.splitlines()[4] == mean
    assert text.count("mean") == 1
    assert "| shop | opq | 2 | generator alone | masked | 0.2000 | 0.1000 | 2.0% |" in text
    assert "| shop | opq | 2 | served ranking | masked | 0.3000 | 0.3000 |  |" in text
    assert "| shop | opq | 2 | served ranking | kept | 0.2500 | 0.2250 |  |" in text


def test_what_new_items_cost_is_told_where_there_are_any() -> None:
    cold = ColdOutcome(
        recall=0.1,
        head_recall=0.12,
        chance_recall=0.03,
        popularity_recall=0.0,
        others_ndcg=0.2,
        cost=0.05,
    )
    measured = ONE.model_copy(update={"cold": cold})
    worse = measured.model_copy(
        update={"seed": 4, "cold": cold.model_copy(update={"cost": 0.15})},
    )

    text = markdown(Comparison(planned=2, outcomes=[measured, worse]))

    first, _, *lines = text.splitlines()
    assert first.endswith(
        "| new items R@10 | of the item head | of chance | of popularity "
        "| others N@10 | lost to the new |"
    )
    assert lines[0].endswith("| 60 | 0.1000 | 0.1200 | 0.0300 | 0.0000 | 0.2000 | 5.0% |")
    assert lines[2].endswith("| 60 | 0.1000 | 0.1200 | 0.0300 | 0.0000 | 0.2000 | 10.0% |")
    assert "new items" not in markdown(Comparison(planned=1, outcomes=[ONE]))


def test_every_method_of_the_example_has_a_mark_of_its_own() -> None:
    found = read_combinations(PROJECT / "docs" / "examples" / "compare.toml")
    methods = {each.method for each in found}

    assert len({mark(number) for number in range(len(methods))}) == len(methods) > 10
    assert len({mark(number) for number in range(50)}) == 50


def test_three_seeds_of_the_preset_are_an_example() -> None:
    found = read_combinations(PROJECT / "docs" / "examples" / "seeds.toml")

    assert [(each.dataset, each.seed) for each in found] == [
        (dataset, seed) for dataset in ("beauty", "toys") for seed in (0, 1, 2)
    ]
    assert {each.config.train.seed for each in found} == {0, 1, 2}


def test_new_items_are_an_example_for_both_tokenizers() -> None:
    found = read_combinations(PROJECT / "docs" / "examples" / "cold.toml")

    assert [(each.dataset, each.method) for each in found] == [
        (dataset, method) for dataset in ("beauty", "toys") for method in ("kmeans", "simcit")
    ]
    for each in found:
        assert each.config.prepare is not None
        assert each.config.prepare.cold_items == 0.05
        assert each.config.tokenize.method == each.method


def test_the_example_is_valid() -> None:
    found = read_combinations(PROJECT / "docs" / "examples" / "compare.toml")

    names = [(each.dataset, each.method) for each in found]
    assert ("beauty", "simcit") in names
    assert ("beauty", "simcit-of-beauty") not in names
    (foreign,) = [each for each in found if each.method == "simcit-of-beauty"]
    (fitted,) = [each for each in found if names[0][0] == each.dataset and each.method == "simcit"]
    assert foreign.config.tokenize.fitted == fitted.stages().tokenized
    assert foreign.config.tokenize.method == "simcit"
