"""Train the network, watched by validation, resumable at every epoch.

The loop: all positions of all training histories, item head and generator together; after every
epoch three validation rankings; the epoch with the best served NDCG@10 is kept. Then the generator
of that epoch takes its lessons from the item head (`teaching.py`), which are kept when generator
and served ranking together are no worse for them. Each epoch draws from random generators seeded by
(seed, epoch), so a run that was interrupted and resumed ends with the same parameters as one that
was not (bit for bit on one CPU process).

`trained/` holds `last.ckpt`, `taught.ckpt` and `best.ckpt` while training, and `training.json`,
written last.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from model.diffusion_search import ANY_ORDER_ITEMS_MAX, largest_range, ordered_levels
from model.errors import ConfigError, StageError, TrainingError
from model.manifest import BEAM_WIDTH_MAX, LevelFacts
from model.training.diffusion_losses import Masking, Objective, diffusion_losses
from model.training.diffusion_network import DiffusionNetwork
from model.training.evaluation.report import plot_training
from model.training.evidence import batch_evidence
from model.training.histories import HeldOut
from model.training.losses import Positions, generator_loss, item_head_loss, path_choices
from model.training.memory import keep_freed_memory
from model.training.network import Network, NetworkShape
from model.training.stage_files import save_json
from model.training.teaching import Lessons, Teaching
from model.training.training_set import TrainingSet, batches, padded, read_training_set
from model.training.validation import validate
from model.trie import Trie


class TrainConfig(BaseModel):
    """How the network is built and trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(64, ge=8, description="D, size of item vectors and of h")
    blocks: int = Field(2, ge=1, description="transformer blocks of the history encoder")
    heads: int = Field(2, ge=1, description="attention heads; they divide the width")
    history_length: int = Field(50, ge=1, description="newest items of a history that are read")
    text_components: int = Field(128, ge=1, description="principal components of the text features")
    dropout: float = Field(0.5, ge=0, lt=1, description="in the encoder and the generator")
    input_dropout: float | None = Field(
        None, ge=0, lt=1, description="of the items that are read; as `dropout` when not given"
    )
    id_dropout: float = Field(
        0.1, ge=0, lt=1, description="how often an item's own vector is left out"
    )
    batch_size: int = Field(256, ge=1, description="histories per step")
    learning_rate: float = Field(
        2e-3, gt=0, description="the highest; it rises for an epoch and falls as a cosine"
    )
    epochs: int = Field(30, ge=1, description="at most this many")
    patience: int = Field(5, ge=1, description="epochs without a better validation before stopping")
    distillation: float = Field(
        0.7,
        ge=0,
        le=1,
        description="share of the generator's loss that is to the item head's probabilities, "
        "summed per node; the rest is to the item that came next",
    )
    teaching_epochs: int = Field(
        2,
        ge=0,
        description="after the best epoch: passes in which the generator alone learns from the "
        "item head",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of the item head's targets: the share spread evenly over the catalogue",
    )
    validation_users: int = Field(3000, ge=1, description="users that validation ranks, at most")
    beam_width: int = Field(
        50,
        ge=10,
        le=BEAM_WIDTH_MAX,
        description="of the search in validation and, by default, serving",
    )
    decoder: Literal["autoregressive", "diffusion"] = Field(
        "autoregressive", description="what writes the codes, on the same encoder"
    )
    least_mask_ratio: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="diffusion: smallest share of masked codes; high is heavy masking",
    )
    diversity_penalty: bool = Field(
        default=False, description="diffusion: keep beams apart that share codes"
    )
    positions: bool = Field(
        default=True,
        description="whether the encoder knows where in a history an item stands; for ablations",
    )
    level_layers: bool = Field(
        default=True,
        description="autoregressive: whether each level has layers of its own; for ablations",
    )
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            message = f"heads {self.heads} must divide width {self.width}"
            raise ValueError(message)
        return self

    def idle(self) -> set[str]:
        """Settings that decide nothing.

        Where it runs, those of a decoder that is not used, and ablations that are not asked for:
        leaving these out lets a training go on that began before there were any.
        """
        whole = {name for name in ("positions", "level_layers") if getattr(self, name)}
        if self.decoder == "diffusion":
            return {"device", "level_layers"} | whole
        return {"device", "decoder", "least_mask_ratio", "diversity_penalty"} | whole


class TrainingRun:
    """The state of one training: network, optimizer and what validation said so far."""

    def __init__(self, config: TrainConfig, data: TrainingSet) -> None:
        keep_freed_memory()
        torch.manual_seed(config.seed)
        accelerator = "cpu" if config.device == "cpu" else config.device
        on_gpu = config.device != "cpu" and torch.cuda.is_available()
        precision: Any = "bf16-mixed" if on_gpu else "32-true"
        self.fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
        self.config, self.data = config, data
        network = build_network(config, data)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=0.0
        )
        self.network, self.optimizer = self.fabric.setup(network, optimizer)
        self.epochs: list[dict[str, float]] = []
        """One row per finished epoch: losses, validation NDCG@10, fusion weight, seconds."""

    def best(self) -> dict[str, float]:
        """The epoch with the best served validation NDCG@10."""
        return max(self.epochs, key=lambda row: row["served"])

    def standing(self) -> str:
        """The best validation so far as words; none before the first and where nothing ranks."""
        if not self.epochs or "served" not in self.epochs[-1]:
            return ""
        best = self.best()
        return f"  best NDCG@10 {best['served']:.4f} (epoch {best['epoch']})"

    def is_over(self) -> bool:
        """Whether the epochs are used up or validation has stopped improving."""
        if not self.epochs:
            return False
        stale = self.epochs[-1]["epoch"] - self.best()["epoch"] >= self.config.patience
        return stale or len(self.epochs) >= self.config.epochs

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.epochs,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        restore_parameters(self.network, self.data, state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epochs = list(state["epochs"])

    def steps(self, epoch: int) -> Iterator[tuple[float, float, float]]:
        """Train one epoch, yielding the share done and the two losses after each step."""
        torch.manual_seed(self.config.seed * 100_003 + epoch)
        generator = np.random.default_rng((self.config.seed, epoch))
        self.network.train()
        plan = batches(self.data.windows, self.config.batch_size, generator)
        for done, rows in enumerate(plan, start=1):
            head, generated = losses(self.network, self.data, rows, self.config)
            loss = head + generated
            if not torch.isfinite(loss):
                message = f"the loss is {loss.item()} in epoch {epoch}; lower learning_rate"
                raise TrainingError(message)
            rate = learning_rate_at(epoch - 1 + (done - 1) / len(plan), self.config)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            self.optimizer.step()
            yield done / len(plan), head.item(), generated.item()


def learning_rate_at(epochs: float, config: TrainConfig) -> float:
    """The learning rate after so many epochs: one of warm-up, then half a cosine to nearly zero.

    A function of the time alone, so that a resumed training goes on with the same one.
    """
    rise = min(1.0, epochs + 0.01)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, epochs / config.epochs)))
    return config.learning_rate * rise * max(fall, 0.01)


def build_network(config: TrainConfig, data: TrainingSet) -> Network:
    """The untrained network over the catalogue of `data`."""
    shape = NetworkShape(
        width=config.width,
        blocks=config.blocks,
        heads=config.heads,
        history_length=config.history_length,
        text_width=min(config.text_components, data.catalogue.text.shape[1]),
        codebook_sizes=tuple(level.codes for level in data.catalogue.levels),
        dropout=config.dropout,
        input_dropout=config.dropout if config.input_dropout is None else config.input_dropout,
        id_dropout=config.id_dropout,
        category_levels=category_levels(data.catalogue.levels),
        positions=config.positions,
        level_layers=config.level_layers,
    )
    codes = torch.from_numpy(data.catalogue.codes.astype(np.int64))
    text = torch.from_numpy(data.catalogue.text)
    kind = DiffusionNetwork if config.decoder == "diffusion" else Network
    return kind(shape, data.catalogue.trie, text, codes, data.trained())


def category_levels(levels: Sequence[LevelFacts]) -> int:
    """How many leading levels spell the category."""
    return next((at for at, level in enumerate(levels) if level.kind != "category"), len(levels))


def restore_parameters(
    network: Network, data: TrainingSet, parameters: Mapping[str, Tensor]
) -> None:
    """Load trained parameters into the network that `build_network` made over `data`."""
    network.load_state_dict(parameters)
    network.project(torch.from_numpy(data.catalogue.text))


def losses(
    network: Network, data: TrainingSet, rows: Any, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Item head's and generator's mean loss over all positions of a batch of windows `rows`."""
    device = network.text.device
    windows = [data.windows[row] for row in rows]
    leaves, real = (tensor.to(device) for tensor in padded(windows))
    items = network.item_vectors()
    encoded = network.history_encoder(items[leaves[:, :-1]])
    predicted = real[:, 1:]
    targets = leaves[:, 1:][predicted]
    evidence = batch_evidence(network, data.transitions, windows, data.popularity)
    positions = Positions(encoded[predicted], targets, evidence)
    if config.decoder == "diffusion":
        denoising = cast("DiffusionNetwork", network)  # Fabric's wrapper hides its class
        masking = Masking(config.least_mask_ratio)
        objective = Objective(masking, config.distillation, config.label_smoothing)
        return diffusion_losses(denoising, positions, items, objective)
    tree = network.tree(items)
    choices = path_choices(network, targets, tree)
    head, taught = item_head_loss(network, positions, items, choices, config.label_smoothing)
    return head, generator_loss(network, positions, tree, choices, taught, config.distillation)


def train(
    config: TrainConfig, prepared: Path, embedded: Path, tokenized: Path, output: Path
) -> dict[str, float]:
    """Train on the training split, resuming what an earlier call left in `output`.

    Returns:
        The row of the best epoch.

    Raises:
        StageError: a stage before this one is unfinished, or `output` belongs to another run.
        ConfigError: the catalogue leaves a setting nothing to work on.
        TrainingError: the loss is no longer finite.
    """
    data = read_training_set(
        prepared, embedded, tokenized, history_length=config.history_length, refit=False
    )
    refuse_idle_penalty(config, data.catalogue.trie, category_levels(data.catalogue.levels))
    output.mkdir(parents=True, exist_ok=True)
    run = TrainingRun(config, data)
    identity = fingerprint(config, data)
    resume(run, output, identity)
    task = validation_task(data, config.validation_users)
    with progress_bar() as progress:
        while not run.is_over():
            row = train_epoch(run, progress)
            scores = validate(run.network.module, run.data.transitions, task, config.beam_width)
            run.epochs.append(row | asdict(scores))
            # The best first: an interruption between the two repeats this epoch.
            if run.best() is run.epochs[-1]:
                save(output / "best.ckpt", identity, run.state())
            save(output / "last.ckpt", identity, run.state())
            plot_training(run.epochs, output / "curves.png")
            progress.console.print(describe(run.epochs[-1]))
        lessons = take_lessons(run, output, identity, progress, task)
    best = run.best() | {"taught": 0}
    if lessons and _merit(lessons[-1]) >= _merit(best):
        best |= {name: value for name, value in lessons[-1].items() if name != "seconds"}
        save(output / "best.ckpt", identity, run.state())
    finish(output, run, lessons, best, refit=False)
    return best


def refuse_idle_penalty(config: TrainConfig, trie: Trie, leading: int) -> None:
    """Refuse to keep beams apart where no code is taken in any order.

    Args:
        config: how the network is trained.
        trie: of the catalogue.
        leading: leading levels that spell the category.

    Raises:
        ConfigError: `diversity_penalty` would do nothing.
    """
    if config.decoder != "diffusion" or not config.diversity_penalty:
        return
    if ordered_levels(trie, leading) == trie.levels:
        raise ConfigError(
            "train.diversity_penalty has nothing to work on: it keeps codes apart that are taken "
            f"in any order, and the largest category has {largest_range(trie, max(1, leading)):,} "
            f"items where that is done up to {ANY_ORDER_ITEMS_MAX:,}; leave it out, or raise "
            "tokenize.category_levels"
        )


def _merit(row: dict[str, float]) -> float:
    """What lessons are judged by: they shall lift the generator and not cost the served ranking."""
    return row["generator"] + row["served"]


def take_lessons(
    run: TrainingRun, output: Path, identity: str, progress: Progress, task: HeldOut | None
) -> list[dict[str, float]]:
    """Teach the generator of `best.ckpt`, resuming what an earlier call left in `taught.ckpt`.

    The network of `run` is the taught one after any lesson. Without a `task` nothing is validated.

    Returns:
        One row per lesson.

    Raises:
        StageError: `taught.ckpt` belongs to another run.
        TrainingError: the loss is no longer finite.
    """
    config = run.config
    if config.teaching_epochs == 0:
        return []
    lessons = Lessons(
        config.teaching_epochs,
        config.learning_rate,
        config.batch_size,
        config.seed,
        Masking(config.least_mask_ratio),
    )
    teaching = Teaching(run.fabric, run.network.module, run.data, lessons)
    path = output / "taught.ckpt"
    if path.is_file():
        state = load_own(path, identity)
        teaching.optimizer.load_state_dict(state["optimizer"])
        teaching.epochs = list(state["epochs"])
    else:
        state = load_own(output / "best.ckpt", identity)
    restore_parameters(run.network, run.data, state["network"])
    while not teaching.is_over():
        row = give_lesson(teaching, progress)
        if task is not None:
            network, transitions = run.network.module, run.data.transitions
            row |= asdict(validate(network, transitions, task, config.beam_width))
            progress.console.print(describe_lesson(row))
        teaching.epochs.append(row)
        save(path, identity, teaching.state())
        plot_training([*run.epochs, *teaching.epochs], output / "curves.png")
    return teaching.epochs


def give_lesson(teaching: Teaching, progress: Progress) -> dict[str, float]:
    """Give one lesson under the progress bar; returns its number, mean loss and seconds."""
    number, began = len(teaching.epochs) + 1, time.perf_counter()
    bar = progress.add_task(f"lesson {number}", total=1.0, note="")
    seen: list[float] = []
    for share, loss in teaching.steps(number):
        seen.append(loss)
        progress.update(bar, completed=share, note=f"loss {loss:.3f}")
    progress.remove_task(bar)
    seconds = time.perf_counter() - began
    return {"taught": number, "teaching_loss": float(np.mean(seen)), "seconds": seconds}


def validation_task(data: TrainingSet, most: int) -> HeldOut:
    """The users that validation ranks: those with a history, at most `most`, drawn at random.

    Raises:
        StageError: there are none.
    """
    task = data.held_out("validation")
    able = np.flatnonzero([len(history) > 0 for history in task.inputs])
    if not len(able):
        message = "no user has a validation event after a training event: prepare another split"
        raise StageError(message)
    if len(able) > most:
        able = able[np.random.default_rng(0).permutation(len(able))[:most]]
    return HeldOut(task.users[able], [task.inputs[row] for row in able], task.targets[able])


def refit(
    config: TrainConfig, stages: tuple[Path, Path, Path], chosen: Path, output: Path
) -> dict[str, float]:
    """Train on all events for as many epochs as validation chose in `chosen`.

    Args:
        config: as in the run that chose.
        stages: the folders prepared, embedded and tokenized.
        chosen: the `trained` folder of that run.
        output: another folder.
    """
    best = read_training(chosen)["best"]
    prepared, embedded, tokenized = stages
    data = read_training_set(
        prepared, embedded, tokenized, history_length=config.history_length, refit=True
    )
    output.mkdir(parents=True, exist_ok=True)
    run = TrainingRun(config, data)
    identity = fingerprint(config, data)
    resume(run, output, identity)
    with progress_bar() as progress:
        while len(run.epochs) < best["epoch"]:
            row = train_epoch(run, progress)
            run.epochs.append(row | {"fusion_weight": best["fusion_weight"]})
            save(output / "last.ckpt", identity, run.state())
        save(output / "best.ckpt", identity, run.state())
        lessons = []
        if best["taught"]:
            lessons = take_lessons(run, output, identity, progress, task=None)
            save(output / "best.ckpt", identity, run.state())
    finish(output, run, lessons, run.epochs[-1], refit=True)
    return run.epochs[-1]


def train_epoch(run: TrainingRun, progress: Progress) -> dict[str, float]:
    """Run one epoch under the progress bar; returns its number, mean losses and seconds."""
    epoch, began = len(run.epochs) + 1, time.perf_counter()
    bar = progress.add_task(f"epoch {epoch}", total=1.0, note="")
    seen: list[tuple[float, float]] = []
    standing = run.standing()
    for share, head, generated in run.steps(epoch):
        seen.append((head, generated))
        note = f"loss {head:.3f} / {generated:.3f}{standing}"
        progress.update(bar, completed=share, note=note)
    progress.remove_task(bar)
    head, generated = np.mean(seen, axis=0)
    seconds = time.perf_counter() - began
    return {
        "epoch": epoch,
        "head_loss": float(head),
        "generator_loss": float(generated),
        "seconds": seconds,
    }


def describe(row: dict[str, float]) -> str:
    """One finished epoch as a line for people."""
    return (
        f"epoch {row['epoch']:3.0f}  {row['seconds']:6.1f} s  "
        f"loss {row['head_loss']:.3f} / {row['generator_loss']:.3f}  "
        f"validation NDCG@10: generator {row['generator']:.4f}, "
        f"item head {row['item_head']:.4f}, served {row['served']:.4f}"
    )


def describe_lesson(row: dict[str, float]) -> str:
    """One lesson as a line for people."""
    return (
        f"lesson {row['taught']:2.0f}  {row['seconds']:6.1f} s  loss {row['teaching_loss']:.3f}  "
        f"validation NDCG@10: generator {row['generator']:.4f}, served {row['served']:.4f}"
    )


def progress_bar() -> Progress:
    """The bar of one epoch."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


def fingerprint(config: TrainConfig, data: TrainingSet) -> str:
    """What a checkpoint must agree with to be continued: configuration, tokens and histories."""
    settings = config.model_dump_json(exclude=config.idle(), exclude_none=True)
    digest = hashlib.sha256(settings.encode())
    for array in (data.catalogue.codes, data.catalogue.text, np.concatenate(data.windows)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save({"identity": identity, **state}, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values, never code.

    Raises:
        StageError: it is missing, damaged, or holds anything else.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises the errors of its unpickler and of its zip reader
        first = str(error).strip().split("\n")[0]
        message = f"{path} is not a checkpoint of this training ({first}): delete {path.parent}"
        raise StageError(message) from error
    return state


def load_own(path: Path, identity: str) -> dict[str, Any]:
    """Read a checkpoint of this very run.

    Raises:
        StageError: it is damaged, or belongs to another configuration or other data.
    """
    state = load(path)
    if state["identity"] != identity:
        message = f"{path} belongs to another configuration or other data: delete {path.parent}"
        raise StageError(message)
    return state


def resume(run: TrainingRun, output: Path, identity: str) -> None:
    """Continue from `last.ckpt` if there is one.

    Raises:
        StageError: it belongs to another configuration or other data.
    """
    path = output / "last.ckpt"
    if path.is_file():
        run.restore(load_own(path, identity))


def finish(
    output: Path,
    run: TrainingRun,
    lessons: list[dict[str, float]],
    best: dict[str, float],
    *,
    refit: bool,
) -> None:
    """Write `training.json`, the sign that `output` is complete."""
    facts = {
        "config": run.config.model_dump(exclude=run.config.idle()),
        "refit": refit,
        "best": best,
        "epochs": run.epochs,
        "lessons": lessons,
        "minutes": sum(row["seconds"] for row in [*run.epochs, *lessons]) / 60,
    }
    save_json(output / "training.json", facts)


def read_training(trained: Path) -> dict[str, Any]:
    """The facts of a finished training.

    Raises:
        StageError: `trained` is not finished.
    """
    path = trained / "training.json"
    if not path.is_file():
        message = f"{trained} has no training.json: training did not finish; run it again"
        raise StageError(message)
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts
