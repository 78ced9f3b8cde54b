"""`python -m tests.benchmarks.t5_accuracy --workspace runs/beauty`: the published alternative.

Trains a T5 of TIGER's size on flat tokens, made from the codes that our bundle of the same
workspace has, for some minutes of one core, and measures it as `cofine evaluate` does: Recall and
NDCG on item ids, the full catalogue ranked by a beam of 50, seen items left out.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from model.training.evaluation.metrics import summary
from model.training.evaluation.report import markdown_table
from model.training.pipeline import Workspace
from model.training.stage_files import save_json, save_text
from tests.benchmarks.t5 import tiger
from tests.benchmarks.t5_data import HISTORY, read_flat_data
from tests.benchmarks.t5_ranking import BEAMS
from tests.benchmarks.t5_training import (
    BATCH,
    LEARNING_RATE,
    WEIGHT_DECAY,
    T5Training,
    train,
)

VALIDATION_USERS = 1_000
METRICS = {"recall@5": "R@5", "ndcg@5": "N@5", "recall@10": "R@10", "ndcg@10": "N@10"}

mpl.use("Agg")


def measure(training: T5Training, name: str, users: int, output: Path) -> dict[str, Any]:
    """Train, choose the part by validation, and rank the test targets once.

    Args:
        training: just begun; what `output` holds of it is taken up.
        name: of the data.
        users: of the test, at most.
        output: the folder of the checkpoint.

    Raises:
        StageError: `output` holds another training.
        TrainingError: the loss is no longer finite.
    """
    data = training.data
    validation, asked = data.task("validation", VALIDATION_USERS), data.task("test", users)
    with Progress() as progress:
        train(training, validation, output, progress)
        began = time.process_time()
        ranks = training.rank(asked, progress).ranks
    return {
        "workspace": name,
        "items": data.trie.item_count,
        "tokens": data.tokens.count,
        "tokens_per_item": data.trie.levels,
        "parameters": training.model.num_parameters(),
        "settings": {
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "history": HISTORY,
            "beams": BEAMS,
        },
        "minutes": training.seconds / 60,
        "samples": training.samples,
        "passes": training.rows[-1]["passes"],
        "epochs": training.samples / sum(len(events) - 1 for events in data.training()),
        "parts": training.rows,
        "best": training.best(),
        "validation_users": len(validation.users),
        "test_users": len(asked.users),
        "test_users_in_split": len(data.histories.held_out("test").users),
        "test_minutes": (time.process_time() - began) / 60,
        "test": summary(ranks),
    }


def table(result: dict[str, Any]) -> str:
    """The row of a table of results, and what it rests on."""
    name = f"T5 of TIGER's size, our codes, {result['minutes']:.0f} minutes of one core"
    row = [name, *(f"{result['test'][metric]:.4f}" for metric in METRICS)]
    best = result["best"]
    facts = (
        f"{result['workspace']}: {result['parameters']:,} parameters, {result['samples']:,} "
        f"samples, {result['passes']:.1f} of every user and {result['epochs']:.2f} epochs of all "
        f"targets; kept at {best['minutes']:.0f} minutes, validation NDCG@10 "
        f"{best['ndcg@10']:.4f} on {result['validation_users']:,} users; test on "
        f"{result['test_users']:,} of {result['test_users_in_split']:,} users, seen items masked."
    )
    return f"{markdown_table(['ranking', *METRICS.values()], [row])}\n\n{facts}\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Validation NDCG@10 against minutes of training; the file appears whole or not at all."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    parts = result["parts"]
    axes.plot([part["minutes"] for part in parts], [part["ndcg@10"] for part in parts], marker="o")
    axes.set(
        xlabel="minutes of one core",
        ylabel=f"validation NDCG@10, {result['validation_users']:,} users",
        title=f"T5 on flat tokens, {result['workspace']}",
    )
    axes.set_ylim(bottom=0)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)


def main() -> None:
    """Measure, and write t5.json, t5.md and t5.png."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.t5_accuracy", description=__doc__
    )
    parser.add_argument("--workspace", type=Path, default=Path("runs/beauty"))
    parser.add_argument("--minutes", type=float, default=30.0, help="processor time of training")
    parser.add_argument("--users", type=int, default=5_000, help="of the test, at most")
    parser.add_argument("--out", type=Path, help="build/t5/ and the workspace's name by default")
    options = parser.parse_args()
    output = options.out or Path("build/t5") / options.workspace.name
    torch.set_num_threads(1)
    data = read_flat_data(Workspace(options.workspace).stages())
    training = T5Training(data, tiger(data.tokens.count), options.minutes)
    result = measure(training, options.workspace.name, options.users, output)
    draw(result, output / "t5.png")
    save_text(output / "t5.md", table(result))
    save_json(output / "t5.json", result)
    Console().print(table(result), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
