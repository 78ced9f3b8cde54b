"""How much answers are like an anchor, and what its weight costs.

    python -m tests.benchmarks.anchors BUNDLE PREPARED [--users N]

Recommends ten items to held-out users of the test split with a random other item as the anchor,
and prints a Markdown table of how like it the answers are: without it, with it as the newest item
of the history alone, and with several weights of likeness. *Next item found* is Recall@10 of the
target where the anchor is the user's last item before it, as on a page that shows the item.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model import likeness
from model.bundle import Bundle
from model.query import Query, Recommendation
from model.recommender import Recommender
from model.training.evaluation.evaluate import EvaluateConfig
from model.training.evaluation.task import Choice, read_task
from model.types import ItemId

WEIGHTS = (0.0, 4.0, 8.0, 16.0)


@dataclass
class Row:
    """How like the anchors the answers of one way are."""

    name: str
    same_category: list[float] = field(default_factory=list)
    shared_codes: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)

    def add(self, bundle: Bundle, anchor: int, answer: Recommendation) -> None:
        catalog, vectors = bundle.catalog, bundle.tree.item_vectors
        leaves = [*catalog.leaves([item.item_id for item in answer.items])]
        same = catalog.codes[leaves] == catalog.codes[anchor]
        norms = np.linalg.norm(vectors[leaves], axis=1) * np.linalg.norm(vectors[anchor])
        self.same_category.append(float(same[:, 0].mean()))
        self.shared_codes.append(float(np.cumprod(same, axis=1).sum(axis=1).mean()))
        self.cosine.append(float((vectors[leaves] @ vectors[anchor] / norms).mean()))

    def line(self) -> str:
        columns = (self.same_category, self.shared_codes, self.cosine, self.found)
        category, codes, cosine, found = (float(np.mean(each)) for each in columns)
        return f"| {self.name} | {category:.1%} | {codes:.2f} | {cosine:.2f} | {found:.4f} |"


@dataclass(frozen=True)
class User:
    """A held-out user, and an item that has nothing to do with them."""

    history: list[ItemId]
    anchor: int
    target: ItemId


def measure(recommender: Recommender, users: Sequence[User], name: str) -> Row:
    row, bundle = Row(name), recommender.bundle
    for user in users:
        anchor = bundle.catalog.item_id(user.anchor)
        last = user.history[-1]
        if name == "no anchor":
            query, next_item = Query(user.history, exclude=[anchor]), Query(user.history)
        elif name == "newest of the history":
            query = Query([*user.history, anchor])
            next_item = Query(user.history)
        else:
            query = Query(user.history, anchors=[anchor])
            next_item = Query(user.history[:-1], anchors=[last])
        row.add(bundle, user.anchor, recommender.recommend(query))
        items = recommender.recommend(next_item).items
        row.found.append(user.target in [item.item_id for item in items])
    return row


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--users", type=int, default=500)
    given = parser.parse_args(arguments)
    bundle = Bundle.open(given.bundle, threads=1)
    config = EvaluateConfig()
    task = read_task(
        given.prepared, bundle.catalog, Choice("test", given.users, config.seed, config.head_share)
    )
    chance = np.random.default_rng(config.seed)
    users = [
        User(
            [bundle.catalog.item_id(int(leaf)) for leaf in leaves],
            int(chance.integers(len(bundle.catalog))),
            bundle.catalog.item_id(int(target)),
        )
        for leaves, target in zip(task.leaves, task.targets, strict=True)
        if len(leaves) and target >= 0
    ]
    recommender = Recommender(bundle)
    rows = [measure(recommender, users, name) for name in ("no anchor", "newest of the history")]
    for weight in WEIGHTS:
        likeness.LIKENESS_WEIGHT = weight  # type: ignore[misc]
        rows.append(measure(recommender, users, f"anchor, weight {weight:g}"))
    lines = [
        f"{len(users)} users",
        "",
        "| way | of the anchor's category | codes in common | cosine | next item found |",
        "|---|---|---|---|---|",
        *(row.line() for row in rows),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
