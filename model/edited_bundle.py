"""A bundle with other items: every array that is numbered by leaf or node follows the search tree.

Nothing is computed anew but what belongs to the items that come and go, so that the cost is a copy
of the arrays. Shapes: N items, K that come, L levels, D width, G category paths.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from model.attributes import Attributes, Column, Scalar, suits
from model.browse import BrowseTree
from model.bundle import Bundle
from model.catalog import Catalog, Groups, category_key
from model.decoder import Graphs
from model.diffusion_decoder import DiffusionGraphs
from model.errors import DataError
from model.insertion import Insertion, NewItems, NodeSums, insert
from model.manifest import Manifest
from model.new_items import NewItem
from model.splice import Splice
from model.strings import StringIndex, StringTable, string_hashes
from model.types import CategoryPath, FloatArray

NORM_MARGIN = 1.0001
"""On the largest norm, for rounding: nothing may score above the bound."""


def with_new_items(bundle: Bundle, items: Sequence[NewItem], encoded: NewItems) -> Bundle:
    """Return a bundle that also holds `items`; the one given, and its folder, stay as they are.

    Args:
        bundle: of N items.
        items: K items that it does not hold.
        encoded: their codes and vectors, in the same order.

    Raises:
        DataError: the bundle holds one of the items already.
    """
    old = bundle.catalog.leaves([item.item_id for item in items])
    if len(old):
        name = bundle.catalog.item_id(int(old[0]))
        raise DataError(f"item_id {name!r} is in the catalogue already")
    return with_items(bundle, items, encoded)


def with_items(
    bundle: Bundle,
    items: Sequence[NewItem],
    encoded: NewItems,
    *,
    sums: NodeSums | None = None,
) -> Bundle:
    """Return a bundle with `items` in it, in the place of those of the same ids.

    Args:
        bundle: of N items; it stays as it is.
        items: K items, each once.
        encoded: their codes and vectors, in the same order.
        sums: of the bundle's tree, kept from one call to the next.
    """
    before = bundle.catalog
    places = [before.leaf(item.item_id) for item in items]
    removed = [leaf for leaf in places if leaf is not None]
    done = insert(bundle.tree, before.codes, before.item_ids, encoded, removed=removed, sums=sums)
    placed = [items[row] for row in done.order]
    leaf_now = done.kept.copy()
    for row, leaf in enumerate(places):
        if leaf is not None:
            leaf_now[leaf] = done.added[row]
    counts = [
        0 if places[row] is None else int(bundle.popularity[places[row]]) for row in done.order
    ]
    catalog = _catalog(before, placed, done)
    names = _strings(bundle.browse.names, done.inner, [""] * len(done.inner.places))
    return replace(
        bundle,
        manifest=_manifest(bundle.manifest, done, encoded.vectors),
        catalog=catalog,
        attributes=Attributes(
            tuple(_column(column, done.leaves, placed) for column in bundle.attributes.columns)
        ),
        browse=BrowseTree(
            done.tree.trie,
            done.codes,
            bundle.browse.taxonomies,
            names,
            catalog.titles,
            catalog.item_ids,
        ),
        tree=done.tree,
        popularity=done.leaves.rows(bundle.popularity, np.array(counts, dtype=np.int64)),
        transitions=bundle.transitions.moved(leaf_now, len(done.codes)),
        graphs=_graphs(bundle.graphs, done),
        golden=(),
        withheld=np.empty(0, dtype=np.int64),
    )


def _manifest(manifest: Manifest, done: Insertion, vectors: FloatArray) -> Manifest:
    score, trie = manifest.score, done.tree.trie
    norm = float(np.linalg.norm(vectors, axis=1).max(initial=0)) * NORM_MARGIN
    largest = max(score.largest_item_norm, norm)
    return manifest.model_copy(
        update={
            "items": trie.item_count,
            "nodes": trie.node_count,
            "score": score.model_copy(update={"largest_item_norm": largest}),
        }
    )


def _graphs(graphs: Graphs, done: Insertion) -> Graphs:
    """The graphs over these items; only those of a diffusion bundle know their codes."""
    if not isinstance(graphs, DiffusionGraphs):
        return graphs
    codes = done.codes.astype(np.int64)
    return graphs.over(graphs.table.over(codes, done.tree.item_vectors, done.leaves.added))


def _strings(table: StringTable, splice: Splice, new: Sequence[str]) -> StringTable:
    fresh = StringTable.build(new)
    offsets, blob = splice.lists((table.offsets, table.blob), (fresh.offsets, fresh.blob))
    return StringTable(blob, offsets)


def _index(index: StringIndex, splice: Splice, new: Sequence[str]) -> StringIndex:
    """The index of strings whose numbers have changed as `splice` says."""
    numbers = splice.moved[index.numbers]
    hashes = string_hashes([string.encode(errors="surrogatepass") for string in new])
    order = np.argsort(hashes, kind="stable")
    places = np.searchsorted(index.hashes, hashes[order])
    rows = Splice(len(numbers), np.flatnonzero(numbers < 0), places)
    return StringIndex(
        rows.rows(index.hashes, hashes[order]),
        rows.rows(numbers.astype(np.int32), splice.added[order]),
    )


def _appended(
    table: StringTable, index: StringIndex, new: Sequence[str]
) -> tuple[StringTable, StringIndex]:
    """Strings with others behind them."""
    end = Splice(len(table), np.empty(0, np.int64), np.full(len(new), len(table)))
    return _strings(table, end, new), _index(index, end, new)


def _catalog(old: Catalog, placed: Sequence[NewItem], done: Insertion) -> Catalog:
    """The catalogue's items by their new leaves; `placed` are those that come, in leaf order."""
    ids = [item.item_id for item in placed]
    paths = [list(dict.fromkeys(path for path in item.paths if path)) for item in placed]
    categories, index, numbers = _categories(old, paths)
    full = Groups.build([[numbers[path] for path in each] for each in paths])
    below = [(numbers[prefix], row) for row, each in enumerate(paths) for prefix in _prefixes(each)]
    start, members = done.leaves.lists(
        (old.item_categories.start, old.item_categories.members), (full.start, full.members)
    )
    return Catalog(
        item_ids=_strings(old.item_ids, done.leaves, ids),
        item_index=_index(old.item_index, done.leaves, ids),
        titles=_strings(old.titles, done.leaves, [item.title for item in placed]),
        codes=done.codes,
        categories=categories,
        category_index=index,
        category_items=_members(old.category_items, done.leaves, len(categories), below),
        item_categories=Groups(start, members),
    )


def _prefixes(paths: Sequence[CategoryPath]) -> set[CategoryPath]:
    return {path[:end] for path in paths for end in range(1, len(path) + 1)}


def _categories(
    old: Catalog, paths: Sequence[Sequence[CategoryPath]]
) -> tuple[StringTable, StringIndex, dict[CategoryPath, int]]:
    """All category paths, those that nobody had before behind the others, and their numbers."""
    wanted = sorted({prefix for each in paths for prefix in _prefixes(each)})
    numbers = {path: _number(old, path) for path in wanted}
    fresh = [path for path in wanted if numbers[path] < 0]
    known = len(old.categories)
    numbers |= {path: known + place for place, path in enumerate(fresh)}
    table, index = _appended(
        old.categories, old.category_index, [category_key(path) for path in fresh]
    )
    return table, index, numbers


def _number(catalog: Catalog, path: CategoryPath) -> int:
    """The number of a category path, -1 when no item has it."""
    key = category_key(path)
    candidates = catalog.category_index.candidates(key).tolist()
    return next((each for each in candidates if catalog.categories[each] == key), -1)


def _members(old: Groups, leaves: Splice, groups: int, below: Sequence[tuple[int, int]]) -> Groups:
    """The leaves below each of `groups` paths; `below` pairs paths with rows of new leaves."""
    before = len(old.start) - 1
    start = np.append(old.start, np.full(groups - before, old.start[-1]))
    moved = leaves.moved[old.members]
    gone = np.flatnonzero(moved < 0)
    pairs = sorted(below)
    group = np.array([pair[0] for pair in pairs], dtype=np.int64)
    rows = np.array([pair[1] for pair in pairs], dtype=np.int64)
    places = np.array(
        [
            start[each] + np.searchsorted(old.members[start[each] : start[each + 1]], place)
            for each, place in zip(group.tolist(), leaves.places[rows].tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    sizes = np.diff(start) + np.bincount(group, minlength=groups)
    sizes -= np.bincount(np.searchsorted(start, gone, side="right") - 1, minlength=groups)
    members = Splice(len(moved), gone, places).rows(moved.astype(np.int32), leaves.added[rows])
    return Groups(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), members)


def _column(column: Column, leaves: Splice, placed: Sequence[NewItem]) -> Column:
    """The attribute's values by the new leaves; words that nobody had before come last."""
    given = [_value(column, item) for item in placed]
    words, index = column.words, column.word_index
    if column.type == "str":
        texts = sorted({str(value) for value in given if value is not None})
        numbers = {text: _word(column, text) for text in texts}
        fresh = [text for text in texts if numbers[text] < 0]
        numbers |= {text: len(words) + place for place, text in enumerate(fresh)}
        words, index = _appended(words, index, fresh)
        given = [None if value is None else numbers[str(value)] for value in given]
    filled = np.array([0 if value is None else value for value in given])
    known = np.array([value is not None for value in given], dtype=np.bool_)
    return replace(
        column,
        values=leaves.rows(column.values, filled),
        known=leaves.rows(column.known, known),
        words=words,
        word_index=index,
    )


def _word(column: Column, text: str) -> int:
    """The number of a text that an item has, -1 when none has it."""
    candidates = column.word_index.candidates(text).tolist()
    return next((each for each in candidates if column.words[each] == text), -1)


def _value(column: Column, item: NewItem) -> Scalar | None:
    """An item's value of an attribute; None where it has none, or none of this type."""
    value = item.attributes.get(column.name)
    if value is None and column.name == "brand":
        value = item.brand or None
    return None if value is None or not suits(column.type, value) else value


def old_places(bundle: Bundle, items: Sequence[NewItem]) -> Iterator[tuple[int, int]]:
    """Rows of those items that say nothing new of where they belong, with their leaves.

    Title and category paths are as in the bundle; it does not hold descriptions.
    """
    catalog = bundle.catalog
    for row, item in enumerate(items):
        leaf = catalog.leaf(item.item_id)
        if leaf is not None and (catalog.title(leaf), catalog.paths(leaf)) == (
            item.title,
            item.paths,
        ):
            yield row, leaf
