"""Whether a running service answers real histories with what `evaluate` ranks first.

    python -m tests.end_to_end.check_served BUNDLE PREPARED [--url URL] [--users N] [--split SPLIT]

Posts the histories of held-out users to the service, k = 10, and compares items and scores with
the ranking that `evaluate` measures on the same bundle. With every user of the split asked, Recall
and NDCG at 10 of the answers must also be those in the bundle's evaluation.json. Without --url a
service is started on the bundle. Exit status 1 when anything differs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl

from model.bundle import Bundle
from model.recommender import Recommender
from model.training.evaluation.evaluate import (
    SERVED,
    EvaluateConfig,
    by_fused,
    popular_leaves,
)
from model.training.evaluation.metrics import ndcg_at, rank_in_list, recall_at
from model.training.evaluation.report import Evaluation
from model.training.evaluation.task import Choice, Task, read_task
from model.training.histories import Split
from model.types import IntArray
from tests.end_to_end.service_process import running_service

K = 10
CLIENTS = 2
SCORE_TOLERANCE = 1e-3
"""Both sides compute on the same machine."""
HISTORY_MAX = 1_000
"""What one request takes; the newest items of a longer history are sent."""


@dataclass
class Comparison:
    """What came of asking Q users.

    Attributes:
        users: Q.
        differing: one line per user whose answer is not the expected one.
        largest_score_difference: over all items of all answers.
        metrics: recall@10 and ndcg@10 of the answers.
    """

    users: int
    differing: list[str] = field(default_factory=list)
    largest_score_difference: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


def compare(
    bundle: Path, prepared: Path, url: str, *, split: Split, users: int | None
) -> Comparison:
    """Ask the service at `url` for every held-out user, or for a sample of `users`.

    Raises:
        ModelError: bundle or prepared folder cannot be used.
        httpx2.HTTPError: the service does not answer, or not with 200.
    """
    opened = Bundle.open(bundle, threads=1)
    config = EvaluateConfig()
    task = read_task(prepared, opened.catalog, Choice(split, users, config.seed, config.head_share))
    answers = ask(url, histories(task, prepared))
    expected = (expected_answer(Recommender(opened), leaves) for leaves in task.leaves)
    return judge(opened, task, answers, expected)


def histories(task: Task, prepared: Path) -> list[list[str]]:
    """The task's histories as item ids, oldest first, the newest where they are too long."""
    item_ids = pl.read_parquet(prepared / "items.parquet", columns=["item_id"])["item_id"]
    names = item_ids.to_list()
    return [[names[row] for row in rows[-HISTORY_MAX:]] for rows in task.rows]


def ask(url: str, asked: Sequence[list[str]]) -> list[dict[str, Any]]:
    """The service's answers to the histories."""

    def answers(share: Iterable[list[str]]) -> list[dict[str, Any]]:
        with httpx2.Client(base_url=url, timeout=60) as client:
            found = []
            for history in share:
                response = client.post("/v1/recommend", json={"history": history, "k": K})
                found.append(response.raise_for_status().json())
            return found

    bounds = np.linspace(0, len(asked), CLIENTS + 1).astype(int)
    shares = [asked[low:high] for low, high in pairwise(bounds)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for share in pool.map(answers, shares) for answer in share]


def expected_answer(
    recommender: Recommender, leaves: IntArray
) -> tuple[list[int], list[float] | None]:
    """The first leaves and their scores as `evaluate` ranks them, seen items masked.

    Scores are None for a user without a known history, who is ranked by popularity.
    """
    if len(leaves) == 0:
        return popular_leaves(recommender)[:K].tolist(), None
    width = recommender.bundle.manifest.beam_width
    with recommender.reading(leaves) as h:
        result = recommender.search(h, width, excluded=leaves)
        fused = np.sort(recommender.score.of_found(h, result, leaves))[::-1]
        return by_fused(recommender, h, result, leaves)[:K].tolist(), fused[:K].tolist()


def judge(
    opened: Bundle,
    task: Task,
    answers: Sequence[dict[str, Any]],
    expected: Iterable[tuple[list[int], list[float] | None]],
) -> Comparison:
    """Compare answers with what was expected, user by user."""
    found = Comparison(len(task))
    ranks = np.zeros(len(task), np.int64)
    for place, (answer, (leaves, scores)) in enumerate(zip(answers, expected, strict=True)):
        items = [item for item in answer["items"] if scores is None or is_generated(item)]
        served = [opened.catalog.leaf(item["item_id"]) for item in items]
        ranks[place] = rank_in_list(np.array(served, np.int64), int(task.targets[place]))
        if served != leaves or answer["bundle"] != opened.bundle_id:
            found.differing.append(f"{task.users[place]}: {served} instead of {leaves}")
        elif scores is not None:
            gaps = [abs(item["score"] - s) for item, s in zip(items, scores, strict=True)]
            found.largest_score_difference = max(found.largest_score_difference, *gaps)
    found.metrics = {f"recall@{K}": recall_at(ranks, K), f"ndcg@{K}": ndcg_at(ranks, K)}
    return found


def is_generated(item: dict[str, Any]) -> bool:
    """Whether the item is one that the search found; popular ones only fill a short list up."""
    return bool(item["source"] == "generated")


def complaints(found: Comparison, bundle: Path, *, split: Split, users: int | None) -> list[str]:
    """What is wrong, one line each; none when the service serves what `evaluate` measured."""
    lines = list(found.differing)
    if found.largest_score_difference > SCORE_TOLERANCE:
        lines.append(f"scores differ by up to {found.largest_score_difference}")
    report = bundle / "evaluation.json"
    if users is None and report.exists():
        evaluation = Evaluation.model_validate(json.loads(report.read_text("utf-8")))
        if evaluation.split == split and evaluation.users == found.users:
            measured = evaluation.row(SERVED).metrics
            lines += [
                f"{name} is {value}, in evaluation.json {measured[name]}"
                for name, value in found.metrics.items()
                if abs(value - measured[name]) > 1e-9
            ]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and tell its outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("prepared", type=Path, help="the workspace's `prepared` folder")
    parser.add_argument("--url", help="of a service on this bundle; started when not given")
    parser.add_argument("--users", type=int, help="ask a sample; all when not given")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    chosen = parser.parse_args(arguments)
    with _address(chosen.url, chosen.bundle) as url:
        found = compare(chosen.bundle, chosen.prepared, url, split=chosen.split, users=chosen.users)
    lines = complaints(found, chosen.bundle, split=chosen.split, users=chosen.users)
    for line in lines:
        sys.stdout.write(f"DIFFERS {line}\n")
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items())
    sys.stdout.write(
        f"{found.users} users asked over HTTP, {len(found.differing)} answers differ, scores "
        f"within {found.largest_score_difference:.2g}; {numbers}\n"
    )
    return 1 if lines else 0


@contextmanager
def _address(url: str | None, bundle: Path) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(bundle, Path(folder)) as service,
    ):
        yield service.url


if __name__ == "__main__":
    sys.exit(main())
