"""What a T5 on flat tokens is trained and measured on: our semantic IDs and our split."""

import hashlib
from dataclasses import dataclass

import numpy as np

from model.training.evaluation.task import sample
from model.training.export import Stages
from model.training.histories import HeldOut, Histories, ItemRows, Split, read_histories
from model.training.stage_files import require_stage
from model.trie import Trie
from model.types import AnyArray, IntArray
from tests.benchmarks.t5 import Tokens

HISTORY = 20
"""Newest items of a history that are read, as TIGER does."""


@dataclass(frozen=True)
class FlatData:
    """A catalogue whose every item has a sequence of codes of its own, and histories of it.

    Attributes:
        trie: of these codes; a full semantic ID is one item.
        tokens: of its leaves.
        leaf_of_row: leaf per row of items.parquet [N].
        histories: in rows of items.parquet.
    """

    trie: Trie
    tokens: Tokens
    leaf_of_row: IntArray
    histories: Histories

    def training(self) -> list[IntArray]:
        """Training events as leaves, oldest first, of the users that have two or more."""
        return [self.leaf_of_row[rows] for rows in self.histories.training() if len(rows) > 1]

    def task(self, split: Split, most: int | None) -> HeldOut:
        """At most `most` users of a split, in leaves: those that `cofine evaluate` draws."""
        held_out = self.histories.held_out(split)
        drawn = sample(len(held_out.users), most, seed=0)
        inputs = [self.leaf_of_row[held_out.inputs[user]].astype(np.int32) for user in drawn]
        targets = self.leaf_of_row[held_out.targets[drawn]].astype(np.int32)
        return HeldOut(held_out.users[drawn], inputs, targets)

    def fingerprint(self) -> str:
        """Which tokens and training events these are."""
        digest = hashlib.sha256(self.tokens.items.tobytes())
        for events in self.training():
            digest.update(events.tobytes())
        return digest.hexdigest()


def read_flat_data(stages: Stages) -> FlatData:
    """Read what the stages `prepare` and `tokenize` left.

    Raises:
        StageError: a folder is unfinished.
    """
    require_stage(stages.tokenized, "report.json", "tokenize")
    codes = one_per_item(np.load(stages.tokenized / "codes.npy"))
    trie, order = Trie.build(codes)
    leaf_of_row = np.empty_like(order)
    leaf_of_row[order] = np.arange(len(order))
    return FlatData(trie, Tokens(codes[order]), leaf_of_row, read_histories(stages.prepared))


def one_per_item(codes: AnyArray) -> IntArray:
    """Append TIGER's last code, which numbers the items that share a semantic ID: [N, L + 1]."""
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    grouped = group[order]
    number = np.empty(len(codes), dtype=np.int64)
    number[order] = np.arange(len(codes)) - np.searchsorted(grouped, grouped)
    return np.column_stack([codes.astype(np.int64), number])


def random_prefixes(
    histories: list[IntArray], generator: np.random.Generator
) -> list[IntArray | ItemRows]:
    """One place of each history: the items before it, at most `HISTORY`, then the target."""
    ends = generator.integers(1, [len(leaves) for leaves in histories])
    return [
        leaves[max(0, end - HISTORY) : end + 1] for leaves, end in zip(histories, ends, strict=True)
    ]
