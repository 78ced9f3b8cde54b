import json
from pathlib import Path

import pytest
from rich.console import Console

from model.errors import ConfigError
from model.training.compare import compare, read_combinations
from model.training.comparison import Comparison, Outcome, markdown
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
    assert all(0 <= one.collision_rate <= 1 and one.served_ndcg > 0 for one in found.outcomes)
    written = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    assert Comparison.model_validate(written) == found
    assert (tmp_path / "runs" / "comparison.png").stat().st_size > 1000
    assert (tmp_path / "runs" / "shop" / "embedded" / "meta.json").is_file()
    assert not (tmp_path / "runs" / "shop" / "kmeans" / "seed-0" / "embedded").exists()

    checkpoint = tmp_path / "runs" / "shop" / "random" / "seed-0" / "trained" / "best.ckpt"
    made = checkpoint.stat().st_mtime_ns
    assert compare(path, Console(quiet=True)) == found
    assert checkpoint.stat().st_mtime_ns == made


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
    generator_ndcg=0.1,
    served_recall=0.3,
    served_ndcg=0.2,
    fit_seconds=1.2,
    train_seconds=60,
)


def test_an_unfinished_table_says_so() -> None:
    text = markdown(Comparison(planned=2, outcomes=[ONE]))

    assert "1 of 2 combinations are missing" in text
    assert "| shop | opq | 3 | 12.5% | 4 16 | 0.1000 | 0.3000 | 0.2000 | 1 | 60 |" in text
    assert "missing" not in markdown(Comparison(planned=1, outcomes=[ONE]))


def test_several_seeds_have_a_mean() -> None:
    other = ONE.model_copy(update={"seed": 4, "served_ndcg": 0.4, "train_seconds": 80.0})
    alone = ONE.model_copy(update={"method": "simcit"})

    text = markdown(Comparison(planned=3, outcomes=[ONE, other, alone]))

    mean = "| shop | opq | mean of 2 | 12.5% |  | 0.1000 | 0.3000 | 0.3000 | 1 | 70 |"
    assert text.splitlines()[4] == mean
    assert text.count("mean") == 1


def test_three_seeds_of_the_preset_are_an_example() -> None:
    found = read_combinations(PROJECT / "docs" / "examples" / "seeds.toml")

    assert [(each.dataset, each.seed) for each in found] == [
        (dataset, seed) for dataset in ("beauty", "toys") for seed in (0, 1, 2)
    ]
    assert {each.config.train.seed for each in found} == {0, 1, 2}


def test_the_example_is_valid() -> None:
    found = read_combinations(PROJECT / "docs" / "examples" / "compare.toml")

    names = [(each.dataset, each.method) for each in found]
    assert ("beauty", "simcit") in names
    assert ("beauty", "simcit-of-beauty") not in names
    (foreign,) = [each for each in found if each.method == "simcit-of-beauty"]
    (fitted,) = [each for each in found if names[0][0] == each.dataset and each.method == "simcit"]
    assert foreign.config.tokenize.fitted == fitted.stages().tokenized
    assert foreign.config.tokenize.method == "simcit"
