"""The parity check passes what was exported and catches what was not."""

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model.beam_search import BeamResult
from model.bundle import Bundle
from model.decoder import GRAPHS, Graphs
from model.errors import ExportError
from model.training.export import Stages, read_trained
from model.training.graphs import export_graphs
from model.training.network import Network
from model.training.parity import check_parity, compare, unseen_trees
from model.training.pipeline import Workspace


@pytest.fixture(scope="module")
def stages(shop_bundle: Path) -> Stages:
    return Workspace(shop_bundle.parent / "run").stages()


@pytest.fixture(scope="module")
def network(stages: Stages) -> Network:
    return read_trained(stages)[0]


@pytest.fixture(scope="module")
def bundle(shop_bundle: Path) -> Bundle:
    return Bundle.open(shop_bundle)


@pytest.mark.slow
def test_what_was_exported_passes(any_bundle: Path) -> None:
    trained = read_trained(Workspace(any_bundle.parent / "run").stages())[0]
    check_parity(trained, Bundle.open(any_bundle))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "complaint"),
    [
        ("history_encoder.blocks.0.mix.weight", r"encoder\.onnx and PyTorch differ by"),
        ("denoiser.outer.weight", r"step\.onnx.*PyTorch.*differ by"),
        ("item_encoder.text.weight", r"item_encoder\.onnx and PyTorch differ by"),
    ],
)
def test_another_diffusion_network_is_caught(
    parameter: str, complaint: str, diffusion_bundle: Path
) -> None:
    other = read_trained(Workspace(diffusion_bundle.parent / "run").stages())[0]
    with torch.no_grad():
        values = other.state_dict()[parameter]
        values += 0.05 * torch.randn_like(values)
    with pytest.raises(ExportError, match=complaint):
        check_parity(other, Bundle.open(diffusion_bundle))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "complaint"),
    [
        ("history_encoder.blocks.0.mix.weight", r"encoder\.onnx and PyTorch differ by"),
        ("history_encoder.position.weight", r"encoder\.onnx and PyTorch differ by"),
        ("generator.levels.0.outer.weight", r"decoder\.onnx and PyTorch.*differ by"),
        ("generator.levels.4.inner.bias", r"decoder\.onnx and PyTorch.*differ by"),
        ("item_encoder.codes.1.weight", r"item_encoder\.onnx and PyTorch differ by"),
        ("item_encoder.text.weight", r"item_encoder\.onnx and PyTorch differ by"),
        ("text_basis", r"item_encoder\.onnx and PyTorch differ by"),
    ],
)
def test_another_network_than_the_exported_one_is_caught(
    parameter: str, complaint: str, network: Network, bundle: Bundle
) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        values = other.state_dict()[parameter]
        values += 0.05 * torch.randn_like(values)
    with pytest.raises(ExportError, match=complaint):
        check_parity(other, bundle)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameter",
    ["history_encoder.exit_norm.bias", "generator.levels.1.outer.bias", "item_encoder.text.weight"],
)
def test_numbers_that_are_none_are_caught(parameter: str, network: Network, bundle: Bundle) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.state_dict()[parameter].fill_(torch.nan)
    with pytest.raises(ExportError):
        check_parity(other, bundle)


@pytest.fixture(scope="module")
def other_graphs(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of a network that differs in one layer of the generator."""
    folder = tmp_path_factory.mktemp("other_graphs")
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.generator.get_parameter("levels.2.outer.bias").add_(torch.randn(network.shape.width))
    export_graphs(other, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["decoder", "step"])
def test_graphs_of_different_trainings_are_caught(
    graph: str, network: Network, bundle: Bundle, other_graphs: Path, tmp_path: Path
) -> None:
    for name in GRAPHS:
        source = other_graphs if name == graph else bundle.path
        shutil.copy(source / f"{name}.onnx", tmp_path / f"{name}.onnx")
    mixed = dataclasses.replace(bundle, graphs=Graphs(tmp_path, threads=1))
    with pytest.raises(ExportError, match="differ"):
        check_parity(network, mixed)


@pytest.mark.slow
def test_it_asks_about_catalogues_that_the_export_did_not_see(bundle: Bundle) -> None:
    trees = list(unseen_trees(bundle, np.random.default_rng(0)))
    assert [tree.trie.item_count for tree in trees] == [1, 2, 7, 300]
    assert any(tree.trie.branching != bundle.tree.trie.branching for tree in trees)
    assert all(tree.trie.levels == bundle.tree.trie.levels for tree in trees)


def found(leaves: list[int], log_probs: list[float]) -> BeamResult:
    return BeamResult(np.array(leaves), np.array(log_probs, np.float32)[:, None], -np.inf)


def test_ties_may_change_places_and_nothing_else_may() -> None:
    compare("same", found([1, 2], [-1, -2]), found([1, 2], [-1.00005, -2]))
    compare("tie", found([1, 2], [-1, -1]), found([2, 1], [-1, -1]))
    for other in (
        found([1], [-1]),
        found([1, 3], [-1, -2.001]),
        found([2, 1], [-1.001, -2]),
        found([1, 2], [-1, -2.001]),
        found([1, 2], [-1, np.nan]),
    ):
        with pytest.raises(ExportError, match="what"):
            compare("what", found([1, 2], [-1, -2]), other)
