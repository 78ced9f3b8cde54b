"""From a trained network to a bundle: arrays, graphs, golden cases, manifest last.

The bundle is built in a folder of its own beside its destination, opened and checked there through
the code that serves it, and only then renamed: a destination is a whole bundle or not there.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict

from model.attributes import Attributes, AttributeType, Column, attribute_arrays
from model.bundle import (
    DEFAULT_LIST,
    MANIFEST,
    Bundle,
    catalog_arrays,
    seal,
    transition_arrays,
    tree_arrays,
)
from model.catalog import build_catalog
from model.decoder import SearchTree
from model.default_list import DEFAULT_ITEMS
from model.errors import ConfigError, ExportError
from model.golden_cases import verify_golden
from model.manifest import FORMAT_VERSION, AttributeFacts, DiffusionFacts, Manifest, ScoreFacts
from model.node_hidden import NodeHidden
from model.query import Query
from model.recommender import Recommender
from model.training.decoder_graph import node_weights
from model.training.diffusion_network import DiffusionNetwork
from model.training.graphs import export_graphs
from model.training.network import Network
from model.training.node_names import node_names
from model.training.parity import check_parity
from model.training.repeats import repeat_bias
from model.training.sentence_graph import export_text_encoder
from model.training.train import (
    TrainConfig,
    build_network,
    load,
    read_training,
    restore_parameters,
)
from model.training.training_set import TrainingSet, read_training_set
from model.trie import Trie
from model.types import AnyArray, ItemId

GOLDEN_CASES = 8
GOLDEN_SEED = 20


@dataclass(frozen=True)
class Stages:
    """The folders that a bundle is made from."""

    prepared: Path
    embedded: Path
    tokenized: Path
    trained: Path


class ExportConfig(BaseModel):
    """What a bundle is given besides what was learned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_items: tuple[ItemId, ...] = ()
    """What the default list begins with; by default the most popular items of the coarse
    categories by turns."""


def export(stages: Stages, output: Path, config: ExportConfig | None = None) -> Manifest:
    """Write the bundle in folder `output`, replacing one that is there.

    Raises:
        StageError: a stage is unfinished.
        ExportError: an exported graph does not compute what PyTorch computes, or the disk is full;
            a bundle that is there stays as it was.
        BundleError: the finished bundle does not open.
        ConfigError: `output` is something else than a bundle, which must not be replaced; or the
            default list names an item that the catalogue does not hold.
    """
    _refuse_strangers(output)
    trained = read_trained(stages)
    building = output.with_name(f".{output.name}.partial")
    try:
        sealed = _build(building, stages, trained, config or ExportConfig())
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)  # it takes the room that is missing
        message = f"{building} cannot be written: {error}; make room or name another folder"
        raise ExportError(f"{message} ({output} is as it was)") from error
    _put_in_place(building, output)
    return sealed


def _build(
    building: Path,
    stages: Stages,
    trained: tuple[Network, TrainingSet, Mapping[str, object]],
    config: ExportConfig,
) -> Manifest:
    """Write a whole bundle, checked through the code that serves it."""
    network, data, facts = trained
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with torch.no_grad():
        items = network.item_vectors()
    tree = _search_tree(network, data.catalogue.trie, items)
    attributes = _attributes(stages.prepared, data)
    arrays = tree_arrays(tree) | _catalogue_arrays(stages.prepared, data)
    arrays |= _code_arrays(network, items) | attribute_arrays(attributes)
    arrays |= transition_arrays(data.transitions)
    _write_arrays(building, arrays)
    _copy_encoders(stages, building)
    export_graphs(network, building)
    (building / "golden.json").write_text("[]", encoding="utf-8")
    manifest = _manifest(stages, network, data, facts, tree).model_copy(
        update={"attributes": _attribute_facts(attributes)}
    )
    seal(building, manifest)
    bundle = Bundle.open(building)
    check_parity(network, bundle)
    chosen = _default_list(bundle, config)
    (building / DEFAULT_LIST).write_text(json.dumps(chosen, indent=1), encoding="utf-8")
    cases = _golden_cases(bundle)
    (building / "golden.json").write_text(json.dumps(cases, indent=1), encoding="utf-8")
    sealed = seal(building, manifest)
    verify_golden(Recommender(Bundle.open(building)))
    return sealed


def _search_tree(network: Network, trie: Trie, items: torch.Tensor) -> SearchTree:
    """What a search reads, of the item vectors [N, D]."""
    with torch.no_grad():
        tensors = network.tree(items)
    tree = SearchTree(trie, tensors.vectors.numpy(), tensors.biases.numpy())
    if isinstance(network, DiffusionNetwork):
        return tree
    hidden = NodeHidden.build(trie, tree.vectors, node_weights(network))
    return replace(tree, hidden=hidden)


def _refuse_strangers(output: Path) -> None:
    is_bundle = (output / MANIFEST).is_file()
    if output.exists() and not is_bundle and not (output.is_dir() and not any(output.iterdir())):
        message = f"{output} exists and is not a bundle: name another folder, or remove it"
        raise ConfigError(message)


def read_trained(stages: Stages) -> tuple[Network, TrainingSet, Mapping[str, object]]:
    """Restore the best network of a finished training, in evaluation mode on the CPU.

    Raises:
        StageError: a stage is unfinished.
    """
    facts = read_training(stages.trained)
    config = TrainConfig.model_validate(facts["config"])
    data = read_training_set(
        stages.prepared,
        stages.embedded,
        stages.tokenized,
        history_length=config.history_length,
        refit=bool(facts["refit"]),
    )
    network = build_network(config, data)
    restore_parameters(network, data, load(stages.trained / "best.ckpt")["network"])
    return network.eval().requires_grad_(requires_grad=False), data, facts


def _catalogue_arrays(prepared: Path, data: TrainingSet) -> dict[str, AnyArray]:
    items = pl.read_parquet(prepared / "items.parquet", columns=["item_id", "title", "categories"])
    items = items[data.catalogue.order]
    catalog = build_catalog(
        items["item_id"].to_list(),
        items["title"].to_list(),
        items["categories"].to_list(),
        data.catalogue.codes.astype(np.uint16),
    )
    names = node_names(data.catalogue.trie, items["title"].to_list())
    return catalog_arrays(catalog) | {
        "node_names_blob.npy": names.blob,
        "node_names_offsets.npy": names.offsets,
        "popularity.npy": data.popularity.astype(np.int64),
    }


def _attributes(prepared: Path, data: TrainingSet) -> Attributes:
    """Every attribute that was declared, and the brand, where one item has it."""
    items = pl.read_parquet(prepared / "items.parquet")[data.catalogue.order]
    columns = {
        name.removeprefix("attribute_"): items[name]
        for name in items.columns
        if name.startswith("attribute_")
    }
    brand = items["brand"]
    if "brand" not in columns and (brand != "").any():
        columns["brand"] = brand.set(brand == "", None)
    return Attributes(
        tuple(
            Column.build(name, _attribute_type(columns[name].dtype), columns[name].to_list())
            for name in sorted(columns)
        )
    )


def _attribute_type(dtype: pl.DataType) -> AttributeType:
    if dtype == pl.Boolean:
        return "bool"
    if dtype.is_integer():
        return "int"
    return "float" if dtype.is_float() else "str"


def _attribute_facts(attributes: Attributes) -> tuple[AttributeFacts, ...]:
    return tuple(AttributeFacts(name=each.name, type=each.type) for each in attributes.columns)


def _code_arrays(network: Network, items: torch.Tensor) -> dict[str, AnyArray]:
    """What a diffusion decoder knows of the codes."""
    if not isinstance(network, DiffusionNetwork):
        return {}
    with torch.no_grad():
        table = network.code_table(items)
    return {
        "code_vectors.npy": table.vectors.numpy(),
        "code_biases.npy": table.biases.numpy(),
    }


def _write_arrays(folder: Path, arrays: Mapping[str, AnyArray]) -> None:
    for name, array in arrays.items():
        (folder / name).parent.mkdir(exist_ok=True)
        np.save(folder / name, array, allow_pickle=False)


def _copy_encoders(stages: Stages, folder: Path) -> None:
    """What turns a new item's text into codes and features."""
    shutil.copytree(stages.embedded / "text_encoder", folder / "text_encoder")
    export_text_encoder(folder / "text_encoder")
    shutil.copytree(stages.tokenized / "codebooks", folder / "codebooks")
    for name in ("taxonomy.json", "collaborative_from_text.npy"):
        if (stages.tokenized / name).is_file():
            shutil.copy(stages.tokenized / name, folder / name)
    shutil.copy(stages.tokenized / "levels.json", folder / "levels.json")


def _manifest(
    stages: Stages,
    network: Network,
    data: TrainingSet,
    facts: Mapping[str, object],
    tree: SearchTree,
) -> Manifest:
    config = TrainConfig.model_validate(facts["config"])
    best = facts["best"]
    if not isinstance(best, dict):  # pragma: no cover - training.json is our own file
        message = "training.json names no best epoch: train again"
        raise ExportError(message)
    norms = np.linalg.norm(tree.item_vectors, axis=1)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        bundle_id="",
        levels=data.catalogue.levels,
        items=tree.trie.item_count,
        nodes=tree.trie.node_count,
        width=network.shape.width,
        history_length=network.shape.history_length,
        beam_width=config.beam_width,
        score=ScoreFacts(
            fusion_weight=float(best["fusion_weight"]),
            # A little above the true maximum, so that rounding cannot make the bound fail.
            largest_item_norm=float(norms.max()) * 1.0001,
            evidence_weights=tuple(network.evidence_weights()),
            repeat_bias=repeat_bias(network, data),
        ),
        facts={
            "data": _report(stages.prepared),
            "tokenizer": _report(stages.tokenized),
            "training": facts["config"],
            "refit": facts["refit"],
            "best_epoch": {name: value for name, value in best.items() if name != "seconds"},
        },
        files={},
    )
    if not isinstance(network, DiffusionNetwork):
        return manifest
    diffusion = DiffusionFacts(
        ordered_levels=network.ordered_levels, diversity=config.diversity_penalty
    )
    return manifest.model_copy(update={"diffusion": diffusion})


def _report(folder: Path) -> object:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def _default_list(bundle: Bundle, config: ExportConfig) -> list[ItemId]:
    """The ids that were chosen, or the first of what is spread over the categories."""
    catalog = bundle.catalog
    for item_id in config.default_items:
        if catalog.leaf(item_id) is None:
            message = (
                f"export.default_items: the catalogue does not hold {item_id!r}; name items of "
                "the catalogue, by their item_id"
            )
            raise ConfigError(message)
    spread = [catalog.item_id(leaf) for leaf in bundle.default_order[:DEFAULT_ITEMS].tolist()]
    return [*config.default_items] or spread


def _golden_cases(bundle: Bundle) -> list[dict[str, object]]:
    """Histories composed from catalogue items, never a user's, with their answers."""
    generator = np.random.default_rng(GOLDEN_SEED)
    recommender = Recommender(bundle)
    longest = min(bundle.manifest.history_length, len(bundle.catalog))
    cases: list[dict[str, object]] = []
    for length in np.linspace(0, longest, GOLDEN_CASES).astype(int):
        leaves = generator.integers(len(bundle.catalog), size=length)
        history = [bundle.catalog.item_id(int(leaf)) for leaf in leaves]
        answer = recommender.recommend(Query(history, k=10)).items
        items, scores = [item.item_id for item in answer], [item.score for item in answer]
        cases.append({"history": history, "items": items, "scores": scores})
    return cases


def _put_in_place(building: Path, output: Path) -> None:
    """Rename `building` to `output`; a bundle that is there gives way."""
    former = output.with_name(f".{output.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if output.exists():
        output.replace(former)
    building.replace(output)
    shutil.rmtree(former, ignore_errors=True)
