"""How often an answer is proven to be exact, and what looking wider costs.

    python -m tests.benchmarks.certificates BUNDLE PREPARED [--users N]

Recommends ten items to held-out users of the test split with several beams and with `auto`, seen
items left out, and prints a Markdown table. Times are of processor, so that other work on the
machine hardly moves them.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.training.evaluation.evaluate import EvaluateConfig
from model.training.evaluation.task import Choice, read_task

BEAMS: tuple[int | Literal["auto"], ...] = (20, 50, 100, 200, 400, "auto")


@dataclass
class Row:
    """What one beam gave."""

    beam: int | Literal["auto"]
    certified: list[bool]
    milliseconds: list[float]
    items: list[tuple[str, ...]]

    def line(self, best: "Row") -> str:
        same = [own == other for own, other in zip(self.items, best.items, strict=True)]
        p50, p95 = np.percentile(self.milliseconds, [50, 95])
        return (
            f"| {self.beam} | {np.mean(self.certified):.1%} | {np.mean(same):.1%} "
            f"| {p50:.1f} ms | {p95:.1f} ms |"
        )


def measure(bundle: Bundle, histories: Sequence[list[str]], beam: int | Literal["auto"]) -> Row:
    recommender = Recommender(replace(bundle))  # which has read none of these histories
    row = Row(beam, [], [], [])
    for history in histories:
        started = time.thread_time()
        answer = recommender.recommend(Query(history, beam=beam))
        row.milliseconds.append((time.thread_time() - started) * 1_000)
        row.certified.append(answer.certified is True)
        row.items.append(tuple(item.item_id for item in answer.items))
    return row


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--users", type=int, default=200)
    given = parser.parse_args(arguments)
    bundle = Bundle.open(given.bundle, threads=1)
    config = EvaluateConfig()
    choice = Choice("test", given.users, config.seed, config.head_share)
    task = read_task(given.prepared, bundle.catalog, choice)
    histories = [[bundle.catalog.item_id(int(i)) for i in leaves] for leaves in task.leaves]
    measure(bundle, histories[:5], 50)  # warm
    rows = [measure(bundle, [h for h in histories if h], beam) for beam in BEAMS]
    lines = [
        "| beam | certified | same ten as auto | processor time, p50 | p95 |",
        "|---|---|---|---|---|",
        *(row.line(rows[-1]) for row in rows),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
