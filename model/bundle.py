"""The bundle: the one artifact that passes from the offline to the online half.

A folder of `.npy` arrays, string blobs, ONNX graphs and a manifest, written last, that names every
file with its size and sha256. It is opened whole or not at all, and its id is a hash of the hashes.
`evaluation.json` and `evaluation.md`, added later by `evaluate`, are outside of it.
Shapes: N items, M trie nodes, I inner nodes, L levels, D width, G category paths.
"""

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import TypeAdapter, ValidationError

from model.attributes import Attributes, read_attributes
from model.browse import BrowseTree
from model.catalog import Catalog, Groups
from model.decoder import GRAPHS, Graphs, SearchTree
from model.default_list import default_order, popular_by_group, spread
from model.diffusion_decoder import DiffusionGraphs
from model.diffusion_search import CodeTable, Unmasking
from model.encoded_histories import EncodedHistories
from model.errors import BundleError
from model.manifest import FORMAT_VERSION, FileFacts, Manifest
from model.node_hidden import NodeHidden, asked_nodes
from model.strings import StringIndex, StringTable
from model.taxonomy import Taxonomy, verify_partition
from model.transitions import Transitions
from model.trie import Trie
from model.types import AnyArray, IntArray, ItemId

MANIFEST = "manifest.json"
GOLDEN = "golden.json"
DEFAULT_LIST = "default_list.json"
TAXONOMY = "taxonomy.json"
OUTSIDE = ("evaluation.json", "evaluation.md")
"""Files that may lie in a bundle's folder without being part of it."""
JSON_MAX_BYTES = 16 * 2**20
"""Most that is read of a JSON file, which is parsed whole."""
_TYPES = {
    "trie.npy": np.int32,
    "node_vectors.npy": np.float32,
    "node_biases.npy": np.float32,
    "node_hidden.npy": np.float32,
    "query_weights.npy": np.float32,
    "code_vectors.npy": np.float32,
    "code_biases.npy": np.float32,
    "popularity.npy": np.int64,
    "transitions_weights.npy": np.float32,
    "_blob.npy": np.uint8,
    "_offsets.npy": np.int64,
    "_hashes.npy": np.uint64,
    "_numbers.npy": np.int32,
    "_start.npy": np.int64,
    "_members.npy": np.int32,
}
"""Element types by the end of a file's name; other arrays may be of any type."""


@dataclass(frozen=True)
class GoldenCase:
    """A history made of catalogue items, and what the bundle answered when it was exported."""

    history: tuple[str, ...]
    items: tuple[str, ...]
    scores: tuple[float, ...]


_GOLDEN_CASES = TypeAdapter(tuple[GoldenCase, ...])
_DEFAULT_LIST = TypeAdapter(tuple[ItemId, ...])


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; immutable and shared by all workers."""

    path: Path
    manifest: Manifest
    catalog: Catalog
    attributes: Attributes
    browse: BrowseTree
    tree: SearchTree
    popularity: AnyArray
    """Training events per item, int64 [N]."""
    transitions: Transitions
    graphs: Graphs
    golden: tuple[GoldenCase, ...]
    default_list: tuple[ItemId, ...] = ()
    """What the default list begins with; none in bundles from before there was one."""
    catalogue_version: int = 0
    """0 is the catalogue as exported; edits count up from there."""
    withheld: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Leaves that are in the catalogue and may not be recommended now, ascending."""

    @property
    def bundle_id(self) -> str:
        """Hash of the hashes of all files."""
        return self.manifest.bundle_id

    @cached_property
    def histories(self) -> EncodedHistories:
        """What the encoder says of histories, by the vectors of this catalogue's items."""
        return EncodedHistories(self.graphs, self.tree.item_vectors)

    @cached_property
    def by_popularity(self) -> IntArray:
        """All leaves [N], the most popular first; equally popular ones in leaf order."""
        order: IntArray = np.argsort(-self.popularity, kind="stable")
        return order.astype(np.int32)

    @cached_property
    def popularity_rank(self) -> IntArray:
        """Place of each leaf [N] in `by_popularity`."""
        rank = np.empty(len(self.popularity), np.int64)
        rank[self.by_popularity] = np.arange(len(rank))
        return rank

    @cached_property
    def popular_by_category(self) -> IntArray:
        """All leaves [N], coarse code by coarse code, in each the most popular first."""
        return popular_by_group(self.popularity_rank, self.catalog.codes[:, 0])

    @cached_property
    def default_order(self) -> IntArray:
        """All leaves [N]: the default list, and what follows it spread over the categories."""
        mixed = spread(self.popularity_rank, self.catalog.codes[:, 0])
        return default_order(self.default_list, self.catalog, mixed)

    @cached_property
    def shares_before(self) -> AnyArray:
        """Smoothed shares of training events, summed over the leaves before each [N + 1]."""
        return np.concatenate([[0.0], np.cumsum((self.popularity + 1.0) / self._smoothed_events)])

    def log_popularity(self, leaves: IntArray) -> AnyArray:
        """Logarithm of the smoothed share of training events of `leaves`, float64 [R]."""
        share: AnyArray = (self.popularity[leaves] + 1.0) / self._smoothed_events
        return np.log(share)

    @cached_property
    def _smoothed_events(self) -> int:
        return int(self.popularity.sum()) + len(self.popularity)

    def as_of(self, version: int, withheld: IntArray) -> "Bundle":
        """The same items in another version of the catalogue, with other leaves withheld."""
        other = copy.copy(self)  # with what was computed of the items so far
        object.__setattr__(other, "catalogue_version", version)
        object.__setattr__(other, "withheld", withheld)
        return other

    def live_items(self, first: int, end: int) -> int:
        """How many of the leaves `first` .. `end` - 1 may be recommended now."""
        gone = np.searchsorted(self.withheld, [first, end])
        return end - first - int(gone[1] - gone[0])

    @classmethod
    def open(cls, path: Path, *, threads: int = 1) -> "Bundle":
        """Verify and memory-map the bundle in folder `path`.

        Args:
            path: the folder.
            threads: that one ONNX call may use.

        Raises:
            BundleError: the folder is missing, incomplete, damaged or of another format.
        """
        manifest = read_manifest(path)
        try:
            _verify_files(path, manifest)
            arrays = {name: _load(path, name) for name in manifest.files if name.endswith(".npy")}
            _verify_types(arrays)
            catalog, tree = _catalog(arrays), _tree(arrays, manifest)
            names = StringTable(arrays["node_names_blob.npy"], arrays["node_names_offsets.npy"])
            taxonomies = _taxonomies(path, manifest)
            facts = [(each.name, each.type) for each in manifest.attributes]
            attributes = read_attributes(facts, arrays, manifest.items)
            popularity, golden = arrays["popularity.npy"], _golden(path)
            transitions = _transitions(arrays, manifest)
            chosen = _default_list(path) if DEFAULT_LIST in manifest.files else ()
        except KeyError as error:
            message = f"{path} has no {error.args[0]}: export it again"
            raise BundleError(message) from error
        except OSError as error:
            message = f"{path} cannot be read: {error}"
            raise BundleError(message) from error
        _verify_shapes(manifest, catalog, tree, popularity)
        _verify_names(names, tree)
        _verify_numbers(catalog)
        browse = BrowseTree(
            tree.trie, catalog.codes, taxonomies, names, catalog.titles, catalog.item_ids
        )
        graphs = _graphs(path, manifest, arrays, threads)
        graphs.verify_inputs(levels=len(manifest.levels), width=manifest.width)
        return cls(
            path,
            manifest,
            catalog,
            attributes,
            browse,
            tree,
            popularity,
            transitions,
            graphs,
            golden,
            chosen,
        )


def catalog_arrays(catalog: Catalog) -> dict[str, AnyArray]:
    """The catalogue as arrays by file name."""
    tables = {"item_ids": catalog.item_ids, "titles": catalog.titles}
    tables["categories"] = catalog.categories
    indexes = {"item_index": catalog.item_index, "category_index": catalog.category_index}
    groups = {"category_items": catalog.category_items}
    groups["item_categories"] = catalog.item_categories
    return (
        {"codes.npy": catalog.codes}
        | {f"{name}_blob.npy": table.blob for name, table in tables.items()}
        | {f"{name}_offsets.npy": table.offsets for name, table in tables.items()}
        | {f"{name}_hashes.npy": index.hashes for name, index in indexes.items()}
        | {f"{name}_numbers.npy": index.numbers for name, index in indexes.items()}
        | {f"{name}_start.npy": group.start for name, group in groups.items()}
        | {f"{name}_members.npy": group.members for name, group in groups.items()}
    )


def tree_arrays(tree: SearchTree) -> dict[str, AnyArray]:
    """The search tree as arrays by file name."""
    arrays = {
        "trie.npy": tree.trie.child_start,
        "node_vectors.npy": tree.vectors,
        "node_biases.npy": tree.biases,
    }
    if tree.hidden is None:
        return arrays
    hidden = {"node_hidden.npy": tree.hidden.table, "query_weights.npy": tree.hidden.weights}
    return arrays | hidden


def transition_arrays(transitions: Transitions) -> dict[str, AnyArray]:
    """The transitions as arrays by file name; where their leaves have moved is not among them."""
    return {
        "transitions_start.npy": transitions.start,
        "transitions_members.npy": transitions.followers,
        "transitions_weights.npy": transitions.weights,
    }


def file_facts(folder: Path) -> dict[str, FileFacts]:
    """Size and sha256 of every file of a bundle's folder, by its path inside."""
    return {
        name: FileFacts(size_bytes=path.stat().st_size, sha256=_sha256(path))
        for name, path in sorted(_files(folder))
    }


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of the files as they are now, which makes the folder a bundle.

    Returns:
        `manifest` with the facts of the files and the id that follows from all of it.
    """
    described = manifest.model_copy(update={"files": file_facts(folder)})
    sealed = described.model_copy(update={"bundle_id": described.identity()})
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(sealed.model_dump_json(indent=2, exclude_unset=True), encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return sealed


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest alone.

    Raises:
        BundleError: there is none, or it is not one that this release reads.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(_read_json(path))
    except FileNotFoundError as error:
        message = (
            f"{folder} is not a bundle: it has no {MANIFEST}; export one, or name another folder"
        )
        raise BundleError(message) from error
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read: {error}"
        raise BundleError(message) from error
    version = found.get("format_version") if isinstance(found, dict) else None
    if version != FORMAT_VERSION:
        message = (
            f"{path} has format_version {version!r}, this release reads {FORMAT_VERSION}: "
            "export the bundle again with `cofine run` or `cofine export`"
        )
        raise BundleError(message)
    try:
        manifest = Manifest.model_validate(found)
        identity = manifest.identity()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = (
            f"{path} is not a manifest of this release ({where}: {first['msg']}): export again"
        )
        raise BundleError(message) from error
    except ValueError as error:  # `facts` may hold anything, also what cannot be written again
        message = f"{path} is not a manifest of this release ({error}): export again"
        raise BundleError(message) from error
    if manifest.bundle_id != identity:
        message = (
            f"{path} was edited, or written by another release (bundle_id is not its hash): "
            "export the bundle again"
        )
        raise BundleError(message)
    return manifest


def _verify_files(folder: Path, manifest: Manifest) -> None:
    present = dict(_files(folder))
    strangers = sorted(present.keys() - manifest.files.keys())
    if strangers:
        message = f"{folder} holds {strangers[0]!r}, which the manifest does not name: remove it"
        raise BundleError(message)
    for name, facts in manifest.files.items():
        if name not in present:
            message = f"{folder} has no {name}: the copy is incomplete, copy it again"
            raise BundleError(message)
        _verify_file(folder, name, facts)
    required = [f"{graph}.onnx" for graph in GRAPHS] + [GOLDEN]
    missing = [name for name in required if name not in manifest.files]
    if missing:
        message = f"{folder} has no {missing[0]}: export it again"
        raise BundleError(message)


def _verify_file(folder: Path, name: str, facts: FileFacts) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        message = f"{name} is a link out of {folder}: put the file itself there"
        raise BundleError(message)
    size = path.stat().st_size
    if size != facts.size_bytes:
        message = f"{name} has {size} bytes instead of {facts.size_bytes}: copy it again"
        raise BundleError(message)
    if _sha256(path) != facts.sha256:
        message = f"{name} is damaged (its sha256 differs): copy the bundle again"
        raise BundleError(message)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (MANIFEST, *OUTSIDE):
            yield name, path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> bytes:
    """The content of a JSON file.

    Raises:
        ValueError: it is too large, or no file (a pipe would never end).
    """
    if path.exists() and not path.is_file():
        message = "it is not a file"
        raise ValueError(message)
    with path.open("rb") as file:
        content = file.read(JSON_MAX_BYTES + 1)
    if len(content) > JSON_MAX_BYTES:
        message = f"it is larger than {JSON_MAX_BYTES} bytes"
        raise ValueError(message)
    return content


def _load(folder: Path, name: str) -> AnyArray:
    try:
        with (folder / name).open("rb") as file:
            empty = 0 in _array_shape(file)
        # NumPy maps no empty arrays. As a plain array, because a `memmap` runs Python code for
        # every slice of it, which made each look-up in the catalogue four times slower.
        array: AnyArray = np.asarray(np.load(folder / name, mmap_mode=None if empty else "r"))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:  # as headers can cause
        message = f"{name} is not an array that can be used: {error!r}"
        raise BundleError(message) from error
    return array


def _array_shape(file: BinaryIO) -> tuple[int, ...]:
    """The shape in the header of an `.npy` file, of which the rest of the file is as large.

    Raises:
        ValueError: it is no such file.
    """
    is_first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    promised = dtype.itemsize * math.prod(shape)
    held = os.fstat(file.fileno()).st_size - file.tell()
    if promised != held:
        message = f"its header promises {promised} bytes and {held} follow"
        raise ValueError(message)
    return shape


def _golden(folder: Path) -> tuple[GoldenCase, ...]:
    try:
        cases = _GOLDEN_CASES.validate_json(_read_json(folder / GOLDEN))
    except ValueError as error:
        message = f"{GOLDEN} does not hold golden cases: {error}"
        raise BundleError(message) from error
    if any(len(case.items) != len(case.scores) for case in cases):
        message = f"{GOLDEN} does not hold golden cases: one has not as many scores as items"
        raise BundleError(message)
    return cases


def _default_list(folder: Path) -> tuple[ItemId, ...]:
    try:
        return _DEFAULT_LIST.validate_json(_read_json(folder / DEFAULT_LIST))
    except ValueError as error:
        message = f"{DEFAULT_LIST} does not hold a list of item ids: {error}; export again"
        raise BundleError(message) from error


def _taxonomies(folder: Path, manifest: Manifest) -> tuple[Taxonomy, ...]:
    """The trees of the category levels; none where the tokenizer made no such level."""
    if TAXONOMY not in manifest.files:
        return ()
    try:
        found = json.loads(_read_json(folder / TAXONOMY))
        taxonomies = tuple(Taxonomy.from_json(level) for level in found["levels"])
        for taxonomy, level in zip(taxonomies, manifest.levels, strict=False):
            verify_partition(taxonomy, level.codes)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        message = f"{TAXONOMY} does not hold the category tree of this bundle: {error!r}"
        raise BundleError(message) from error
    return taxonomies[: len(manifest.levels)]


def _verify_names(names: StringTable, tree: SearchTree) -> None:
    bounds = names.offsets
    lies_well = bounds.shape == (tree.trie.item_start + 1,) and bool(np.all(np.diff(bounds) >= 0))
    if not lies_well or bounds[[0, -1]].tolist() != [0, names.blob.size]:
        message = "node_names is not one name for each inner node: parts of two bundles"
        raise BundleError(message)


def _catalog(arrays: Mapping[str, AnyArray]) -> Catalog:
    def table(name: str) -> StringTable:
        return StringTable(arrays[f"{name}_blob.npy"], arrays[f"{name}_offsets.npy"])

    def index(name: str) -> StringIndex:
        return StringIndex(arrays[f"{name}_hashes.npy"], arrays[f"{name}_numbers.npy"])

    def groups(name: str) -> Groups:
        return Groups(arrays[f"{name}_start.npy"], arrays[f"{name}_members.npy"])

    return Catalog(
        item_ids=table("item_ids"),
        item_index=index("item_index"),
        titles=table("titles"),
        codes=arrays["codes.npy"],
        categories=table("categories"),
        category_index=index("category_index"),
        category_items=groups("category_items"),
        item_categories=groups("item_categories"),
    )


def _tree(arrays: Mapping[str, AnyArray], manifest: Manifest) -> SearchTree:
    trie = Trie.from_child_start(arrays["trie.npy"])
    tree = SearchTree(trie, arrays["node_vectors.npy"], arrays["node_biases.npy"])
    if manifest.diffusion is not None:
        return tree
    table, weights = arrays["node_hidden.npy"], arrays["query_weights.npy"]
    return replace(tree, hidden=NodeHidden.known(trie, table, weights))


def _transitions(arrays: Mapping[str, AnyArray], manifest: Manifest) -> Transitions:
    table = Transitions(
        arrays["transitions_start.npy"],
        arrays["transitions_members.npy"],
        arrays["transitions_weights.npy"],
    )
    if not table.is_sound(manifest.items):
        message = "transitions are not a table over the catalogue: parts of two bundles"
        raise BundleError(message)
    wanted = len(manifest.levels) + 2
    if len(manifest.score.evidence_weights) != wanted:
        message = f"manifest.json has not the {wanted} evidence_weights of its levels: export again"
        raise BundleError(message)
    return table


def _graphs(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray], threads: int) -> Graphs:
    """The graphs of the decoder that the manifest names."""
    if manifest.diffusion is None:
        return Graphs(path, threads=threads)
    shape = (len(manifest.levels), max(level.codes for level in manifest.levels))
    wanted = {"code_vectors.npy": (*shape, manifest.width), "code_biases.npy": shape}
    for name, expected in wanted.items():
        if name not in arrays:
            message = f"{path} has no {name}: export it again"
            raise BundleError(message)
        if arrays[name].shape != expected:
            message = (
                f"{name} is {arrays[name].shape} but the manifest says {expected}: parts of two "
                "bundles"
            )
            raise BundleError(message)
    if int(arrays["codes.npy"].max()) >= shape[1]:
        message = f"codes.npy holds a code beyond the {shape[1]} of the manifest: export it again"
        raise BundleError(message)
    codes = arrays["codes.npy"].astype(np.int64)
    weights = np.array(manifest.score.evidence_weights[: shape[0]], np.float32)
    table = CodeTable(codes, arrays["code_vectors.npy"], arrays["code_biases.npy"], weights)
    facts = manifest.diffusion
    if facts.ordered_levels > shape[0]:
        message = f"manifest.json orders {facts.ordered_levels} of {shape[0]} levels: export again"
        raise BundleError(message)
    unmasking = Unmasking(facts.ordered_levels, diversity=facts.diversity)
    return DiffusionGraphs(path, threads=threads, table=table, unmasking=unmasking)


def _verify_types(arrays: Mapping[str, AnyArray]) -> None:
    for name, array in arrays.items():
        for ending, wanted in _TYPES.items():
            if name.endswith(ending) and array.dtype != wanted:
                message = f"{name} holds {array.dtype} instead of {np.dtype(wanted)}"
                raise BundleError(message)
    if arrays["codes.npy"].dtype.kind not in "iu":
        message = f"codes.npy holds {arrays['codes.npy'].dtype} instead of integers"
        raise BundleError(message)


def _verify_lists(catalog: Catalog) -> None:
    """Check that strings and groups lie one after another in what holds them."""
    lists = {
        "item_ids": (catalog.item_ids.offsets, catalog.item_ids.blob),
        "titles": (catalog.titles.offsets, catalog.titles.blob),
        "categories": (catalog.categories.offsets, catalog.categories.blob),
        "category_items": (catalog.category_items.start, catalog.category_items.members),
        "item_categories": (catalog.item_categories.start, catalog.item_categories.members),
    }
    for name, (bounds, content) in lists.items():
        ends = bounds[[0, -1]].tolist() if bounds.ndim == 1 and len(bounds) else None
        if ends != [0, content.size] or bool(np.any(np.diff(bounds) < 0)):
            message = f"{name} starts and ends beyond what its file holds: parts of two bundles"
            raise BundleError(message)


def _verify_numbers(catalog: Catalog) -> None:
    """Check that what lists and indexes point at exists."""
    items, paths = len(catalog), len(catalog.categories)
    numbers = {
        "item_index": (catalog.item_index.numbers, items),
        "category_index": (catalog.category_index.numbers, paths),
        "category_items": (catalog.category_items.members, items),
        "item_categories": (catalog.item_categories.members, paths),
    }
    for name, (found, end) in numbers.items():
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < end:
            message = f"{name} points at numbers beyond 0 .. {end - 1}: parts of two bundles"
            raise BundleError(message)


def _verify_shapes(
    manifest: Manifest, catalog: Catalog, tree: SearchTree, popularity: AnyArray
) -> None:
    items, nodes, levels = manifest.items, manifest.nodes, len(manifest.levels)
    _verify_lists(catalog)
    paths = len(catalog.categories)
    index, path_index = catalog.item_index, catalog.category_index
    checks = {
        "item_ids": (len(catalog), items),
        "item_index": ((index.hashes.shape, index.numbers.shape), ((items,), (items,))),
        "category_index": ((path_index.hashes.shape, path_index.numbers.shape), ((paths,),) * 2),
        "category_items": (catalog.category_items.start.shape, (paths + 1,)),
        "item_categories": (catalog.item_categories.start.shape, (items + 1,)),
        "titles": (len(catalog.titles), items),
        "codes.npy": (catalog.codes.shape, (items, levels)),
        "popularity.npy": (popularity.shape, (items,)),
        "trie.npy": ((tree.trie.levels, tree.trie.item_count), (levels, items)),
        "node_vectors.npy": (tree.vectors.shape, (nodes, manifest.width)),
        "node_biases.npy": (tree.biases.shape, (nodes,)),
        "trie.npy nodes": (tree.trie.node_count, nodes),
    }
    if tree.hidden is not None:
        width, asked = manifest.width, len(asked_nodes(tree.trie))
        checks["query_weights.npy"] = (tree.hidden.weights.shape, (levels + 1, width, 2 * width))
        checks["node_hidden.npy"] = (tree.hidden.table.shape, (asked, 2 * width))
    for name, (found, wanted) in checks.items():
        if found != wanted:
            message = f"{name} is {found} but the manifest says {wanted}: parts of two bundles"
            raise BundleError(message)
