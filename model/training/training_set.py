"""What the network is trained on: the tokenized catalogue and the training histories.

Everything here is in leaf order (semantic ID, then item id), the order of the bundle.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.errors import StageError
from model.item_features import TEXT_FIELDS
from model.manifest import LevelFacts
from model.training.histories import HeldOut, Histories, ItemRows, Split, read_histories
from model.training.stage_files import require_stage
from model.transitions import Transitions
from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray


@dataclass(frozen=True)
class TokenizedCatalogue:
    """The catalogue as the tokenizer left it.

    Shapes: N items, L levels, E text embedding width.
    """

    trie: Trie
    order: IntArray
    """Row of items.parquet per leaf [N]."""
    leaf_of_row: IntArray
    """Leaf per row of items.parquet [N]."""
    codes: IntArray
    """[N, L], leaf order."""
    levels: tuple[LevelFacts, ...]
    text: FloatArray
    """[N, 4 E], leaf order."""


def read_catalogue(embedded: Path, tokenized: Path) -> TokenizedCatalogue:
    """Read the two stage folders.

    Raises:
        StageError: a folder is unfinished, or the two are not of the same catalogue.
    """
    require_stage(embedded, "meta.json", "embed")
    require_stage(tokenized, "report.json", "tokenize")
    codes: AnyArray = np.load(tokenized / "codes.npy")
    text = np.concatenate([np.load(embedded / f"{field}.npy") for field in TEXT_FIELDS], axis=1)
    if len(text) != len(codes):
        message = f"{embedded} has {len(text)} items and {tokenized} {len(codes)}: rerun both"
        raise StageError(message)
    levels = json.loads((tokenized / "levels.json").read_text(encoding="utf-8"))
    trie, order = Trie.build(codes)
    leaf_of_row = np.empty_like(order)
    leaf_of_row[order] = np.arange(len(order))
    facts = tuple(LevelFacts.model_validate(level) for level in levels)
    return TokenizedCatalogue(trie, order, leaf_of_row, codes[order], facts, text[order])


@dataclass(frozen=True)
class TrainingSet:
    """Windows of training histories, and the catalogue that they are written in."""

    catalogue: TokenizedCatalogue
    histories: Histories
    windows: list[IntArray]
    """Leaves, oldest first, at most T + 1 of them: all but the last are read, all but the first
    are predicted."""
    popularity: IntArray
    """Training events per leaf, int64 [N]."""
    transitions: Transitions
    """Counted on the same training histories."""

    def trained(self) -> Tensor:
        """Which leaves training has events of, bool [N]."""
        return torch.from_numpy(self.popularity > 0)

    def held_out(self, split: Split) -> HeldOut:
        """Prediction tasks of a split, in leaves."""
        task = self.histories.held_out(split)
        leaves = self.catalogue.leaf_of_row
        return HeldOut(
            task.users,
            [leaves[rows].astype(np.int32) for rows in task.inputs],
            leaves[task.targets].astype(np.int32),
        )


def read_training_set(
    prepared: Path, embedded: Path, tokenized: Path, *, history_length: int, refit: bool
) -> TrainingSet:
    """Read the stages; with `refit` every event is a training event, else the split's own.

    Raises:
        StageError: a stage is unfinished, or no user has two training events.
    """
    catalogue = read_catalogue(embedded, tokenized)
    histories = read_histories(prepared)
    chosen = histories.complete() if refit else histories.training()
    sequences = [catalogue.leaf_of_row[rows] for rows in chosen]
    windows = [window for leaves in sequences for window in _windows(leaves, history_length)]
    if not windows:
        message = f"{prepared} has no user with two training events: nothing to learn from"
        raise StageError(message)
    items = len(catalogue.order)
    popularity = np.bincount(np.concatenate(sequences), minlength=items)
    transitions = Transitions.count(sequences, items)
    return TrainingSet(catalogue, histories, windows, popularity, transitions)


def _windows(leaves: IntArray, length: int) -> Iterator[IntArray]:
    """Cut a history into windows of `length` + 1 that share one item, the newest window full."""
    end = len(leaves)
    while end > 1:
        start = max(0, end - length - 1)
        yield leaves[start:end]
        end = start + 1 if start else 0


def batches(
    windows: Sequence[IntArray | ItemRows], size: int, generator: np.random.Generator
) -> list[IntArray]:
    """Shuffle windows into batches of about equal length, which wastes little on padding.

    Returns:
        Window numbers of each batch, [<= size] each.
    """
    pool = 32 * size
    shuffled = generator.permutation(len(windows))
    lengths = np.array([len(window) for window in windows])
    made: list[IntArray] = []
    for start in range(0, len(shuffled), pool):
        chunk = shuffled[start : start + pool]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        made += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    return [made[at] for at in generator.permutation(len(made))]


def padded(sequences: Sequence[IntArray | ItemRows]) -> tuple[Tensor, Tensor]:
    """Right-pad with leaf 0: leaves int64 [B, T] and which are real, bool [B, T]."""
    lengths = np.array([len(sequence) for sequence in sequences])
    real = np.arange(max(lengths.max(initial=1), 1)) < lengths[:, None]
    leaves = np.zeros(real.shape, dtype=np.int64)
    leaves[real] = np.concatenate([*sequences])
    return torch.from_numpy(leaves), torch.from_numpy(real)
