"""The exported bundle: whole or not at all, the same each time, and of nobody in particular."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from model.attributes import AnyOf
from model.bundle import Bundle
from model.diffusion_decoder import DiffusionGraphs
from model.errors import ConfigError, ExportError, ModelError, StageError
from model.golden_cases import verify_golden
from model.query import Query
from model.recommender import Recommender
from model.training.decoder_graph import node_weights
from model.training.diffusion_network import DiffusionNetwork
from model.training.export import ExportConfig, Stages, export, read_trained
from model.training.graphs import export_graph
from model.training.pipeline import Workspace
from model.training.train import load

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def stages(shop_bundle: Path) -> Stages:
    return Workspace(shop_bundle.parent / "run").stages()


@pytest.fixture(scope="module")
def any_stages(any_bundle: Path) -> Stages:
    """What the bundle of either decoder was made from."""
    return Workspace(any_bundle.parent / "run").stages()


def bundle_id(folder: Path) -> str:
    return Bundle.open(folder).bundle_id


@pytest.mark.slow
def test_the_bundle_holds_what_was_trained(any_bundle: Path, any_stages: Stages) -> None:
    bundle = Bundle.open(any_bundle)
    network, data, facts = read_trained(any_stages)
    with torch.no_grad():
        tree = network.tree(network.item_vectors())
    np.testing.assert_array_equal(bundle.tree.vectors, tree.vectors)
    np.testing.assert_array_equal(bundle.tree.biases, tree.biases)
    if isinstance(network, DiffusionNetwork):
        assert isinstance(bundle.graphs, DiffusionGraphs)
        with torch.no_grad():
            table = network.code_table(network.item_vectors())
        np.testing.assert_array_equal(bundle.graphs.table.vectors, table.vectors)
        np.testing.assert_array_equal(bundle.graphs.table.biases, table.biases)
    else:
        assert bundle.tree.hidden is not None
        np.testing.assert_array_equal(bundle.tree.hidden.weights, node_weights(network))
    np.testing.assert_array_equal(bundle.popularity, data.popularity)
    items = pl.read_parquet(any_stages.prepared / "items.parquet")
    for leaf, row in enumerate(data.catalogue.order.tolist()):
        assert bundle.catalog.item_id(leaf) == items["item_id"][row]
        assert bundle.catalog.title(leaf) == items["title"][row]
        assert bundle.catalog.paths(leaf) == tuple(map(tuple, items["categories"][row].to_list()))
        assert bundle.catalog.semantic_id(leaf) == tuple(data.catalogue.codes[leaf])
    best = facts["best"]
    assert isinstance(best, dict)
    assert bundle.manifest.score.fusion_weight == best["fusion_weight"]
    norms = np.linalg.norm(bundle.tree.item_vectors, axis=1)
    assert bundle.manifest.score.largest_item_norm >= norms.max()


@pytest.mark.slow
def test_the_bundle_holds_every_attribute_and_the_brand(
    any_bundle: Path, any_stages: Stages
) -> None:
    bundle = Bundle.open(any_bundle)
    items = pl.read_parquet(any_stages.prepared / "items.parquet")
    declared = {each.name: each.type for each in bundle.manifest.attributes}
    assert declared == {"brand": "str", "market": "str", "price": "float"}
    row = {item_id: number for number, item_id in enumerate(items["item_id"])}
    for leaf in range(0, len(bundle.catalog), 29):
        given = items.row(row[bundle.catalog.item_id(leaf)], named=True)
        of_item = {
            "brand": given["brand"],
            "market": given["attribute_market"],
            "price": given["attribute_price"],
        }
        of_item = {name: value for name, value in of_item.items() if value != ""}  # of no brand
        same = bundle.attributes.passing({name: AnyOf((of_item[name],)) for name in of_item})
        assert same[leaf]
        assert same.sum() < 5


@pytest.mark.slow
def test_golden_cases_are_of_catalogue_items_and_no_users(
    any_bundle: Path, any_stages: Stages
) -> None:
    bundle = Bundle.open(any_bundle)
    events = pl.read_parquet(any_stages.prepared / "events.parquet")
    histories = events.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    lengths = [len(case.history) for case in bundle.golden]
    assert lengths[0] == 0
    assert lengths[-1] == bundle.manifest.history_length
    for case in bundle.golden:
        assert all(bundle.catalog.leaf(item) is not None for item in (*case.history, *case.items))
        assert len(case.items) == len(case.scores) == 10
        assert not set(case.history) & set(case.items)
        if len(case.history) > 1:
            wanted = list(case.history)
            assert not any(set(wanted) <= set(history) for history in histories)
    verify_golden(Recommender(bundle))


@pytest.mark.slow
def test_no_file_knows_where_it_was_made(any_bundle: Path) -> None:
    strangers = [str(ROOT), str(any_bundle.parent), sys.prefix, "site-packages", 'File "']
    for path in any_bundle.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [name for name in strangers if name.encode() in content], path


@pytest.mark.slow
def test_the_same_training_gives_the_same_bundle(
    shop_bundle: Path, stages: Stages, tmp_path: Path
) -> None:
    manifest = export(stages, tmp_path / "again")
    assert manifest.bundle_id == bundle_id(shop_bundle) == bundle_id(tmp_path / "again")
    answers = [
        Recommender(Bundle.open(folder)).recommend(Query(["P001", "P002"])).items
        for folder in (shop_bundle, tmp_path / "again")
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_a_broken_network_leaves_the_old_bundle_in_place(
    shop_bundle: Path, stages: Stages, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    shutil.copytree(shop_bundle, output)
    trained = tmp_path / "trained"
    shutil.copytree(stages.trained, trained)
    state = load(trained / "best.ckpt")
    state["network"]["generator.levels.0.outer.bias"].fill_(torch.nan)
    torch.save(state, trained / "best.ckpt")
    broken = Stages(stages.prepared, stages.embedded, stages.tokenized, trained)
    with pytest.raises(ModelError):
        export(broken, output)
    assert bundle_id(output) == bundle_id(shop_bundle)


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_bundle_in_place(
    shop_bundle: Path, stages: Stages, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    shutil.copytree(shop_bundle, output)
    workspace = stages.prepared.parent
    command = [sys.executable, "-m", "model", "export", str(workspace), str(output)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        # What is being built appears beside the bundle, long before it is whole.
        while not (building := tmp_path / ".bundle.partial").is_dir():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert bundle_id(output) == bundle_id(shop_bundle)
    with pytest.raises(ModelError):
        Bundle.open(building)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    nowhere = Stages(*(tmp_path / "none" for _ in range(4)))
    with pytest.raises(ConfigError, match=f"{tmp_path} exists and is not a bundle"):
        export(nowhere, tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_an_unfinished_training_is_refused(tmp_path: Path) -> None:
    nowhere = Stages(*(tmp_path / "none" for _ in range(4)))
    with pytest.raises(StageError, match=r"none has no training\.json"):
        export(nowhere, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_graph_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    class Undecided(torch.nn.Module):
        """Its result hangs on numbers that are only known when it runs."""

        def forward(self, items: torch.Tensor) -> torch.Tensor:
            return items * 2 if float(items.sum()) > 0 else items

    with pytest.raises(ExportError, match=r"odd\.onnx cannot be exported"):
        export_graph(Undecided(), {"items": torch.ones(3, 2)}, tmp_path / "odd.onnx", ["h"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_manifest_says_how_it_came_about(any_bundle: Path, any_stages: Stages) -> None:
    facts = json.loads((any_bundle / "manifest.json").read_text())["facts"]
    training = json.loads((any_stages.trained / "training.json").read_text())
    assert facts["training"] == training["config"]
    assert facts["refit"] is False
    del training["best"]["seconds"]  # of one machine on one day
    assert facts["best_epoch"] == training["best"]
    assert facts["data"] == json.loads((any_stages.prepared / "report.json").read_text())
    assert facts["tokenizer"] == json.loads((any_stages.tokenized / "report.json").read_text())


@pytest.mark.slow
def test_the_default_list_is_spread_over_the_categories_or_chosen(
    shop_bundle: Path, stages: Stages, tmp_path: Path
) -> None:
    plain = Bundle.open(shop_bundle)
    codes = [plain.catalog.semantic_id(leaf)[0] for leaf in plain.default_order[:20].tolist()]
    wanted = plain.catalog.item_id(7)

    export(stages, tmp_path / "chosen", ExportConfig(default_items=(wanted,)))
    chosen = Bundle.open(tmp_path / "chosen")
    unknown = ExportConfig(default_items=(wanted, "nothing"))
    with pytest.raises(ConfigError, match=r"export\.default_items: .* does not hold 'nothing'"):
        export(stages, tmp_path / "unknown", unknown)

    assert len(plain.default_list) == 100
    assert len(set(codes)) == min(20, len(set(plain.catalog.codes[:, 0].tolist())))
    assert chosen.default_list == (wanted,)
    assert chosen.bundle_id != plain.bundle_id
    assert not (tmp_path / "unknown").exists()
