"""A T5 of TIGER's size trained on flat tokens, for a given time of one core, resumably.

The published recipe (AdamW, dropout 0.1, the last 20 items, cross-entropy on the target's tokens)
goes through the data some 200 times. In minutes it sees less than all of them once; hence a pass
takes one random place of every history, and the learning rate falls to 0 as the time runs out.
"""

import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from transformers import T5ForConditionalGeneration

from model.errors import TrainingError
from model.training.evaluation.metrics import summary
from model.training.evaluation.rankings import Rankings
from model.training.histories import HeldOut
from model.training.train import load_own, save
from model.training.training_set import batches
from model.types import IntArray
from tests.benchmarks.t5 import StaticSearch
from tests.benchmarks.t5_data import FlatData, random_prefixes
from tests.benchmarks.t5_ranking import rank

BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.03
"""Share of the time in which the learning rate rises."""

PARTS = 6
"""Of the time; each ends with a validation."""

CHECKPOINT_SECONDS = 60.0
"""Of processor time that an interruption loses at most."""

SEED = 0


class T5Training:
    """The state of one training.

    Attributes:
        rows: one per finished part: minutes of processor time, samples, passes, mean loss and
            validation metrics.
    """

    def __init__(self, data: FlatData, model: T5ForConditionalGeneration, minutes: float) -> None:
        self.data, self.model, self.minutes = data, model, minutes
        self.search = StaticSearch(model, data.trie, data.tokens)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.rows: list[dict[str, float]] = []
        self.seconds, self.samples, self.passes = 0.0, 0, 0
        self._histories = data.training()
        self._left: list[list[IntArray]] = []
        self._losses: list[float] = []
        self._best_parameters: dict[str, Tensor] = {}

    def identity(self) -> str:
        """What a checkpoint must agree with to be continued."""
        return f"{self.data.fingerprint()} {self.minutes} minutes"

    def is_over(self) -> bool:
        return len(self.rows) == PARTS

    def best(self) -> dict[str, float]:
        """The part with the best validation NDCG@10."""
        return max(self.rows, key=lambda row: row["ndcg@10"])

    def part_end(self) -> float:
        """Seconds of processor time at which the part ends that is being learned."""
        return 60 * self.minutes * (len(self.rows) + 1) / PARTS

    def part_is_learned(self) -> bool:
        return self.seconds >= self.part_end() and len(self._losses) > 0

    def learn(self, seconds: float, progress: Progress) -> None:
        """Train for so many seconds of processor time, and not beyond the end of the part.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        end = min(self.seconds + seconds, self.part_end())
        bar = progress.add_task("training", total=60 * self.minutes)
        self.model.train()
        while self.seconds < end or not self._losses:
            loss = self._step()
            if not np.isfinite(loss):
                message = f"the loss is {loss} after {self.samples} samples: lower LEARNING_RATE"
                raise TrainingError(message)
            self._losses.append(loss)
            note = f"part {len(self.rows) + 1} of {PARTS}, pass {self.passes}, loss {loss:.2f}"
            progress.update(bar, completed=self.seconds, description=note)
        progress.remove_task(bar)

    def validate(self, task: HeldOut, progress: Progress) -> None:
        """End a part that is learned: rank the targets of `task`, and keep the best model."""
        began = time.process_time()
        metrics = summary(self.rank(task, progress).ranks)
        facts = {
            "minutes": self.seconds / 60,
            "samples": self.samples,
            "passes": self.samples / len(self._histories),
            "loss": float(np.mean(self._losses)),
            "validation_minutes": (time.process_time() - began) / 60,
        }
        self.rows.append(facts | metrics)
        self._losses = []
        if self.best() is self.rows[-1]:
            state = self.model.state_dict()
            self._best_parameters = {name: tensor.clone() for name, tensor in state.items()}

    def take_best(self) -> None:
        """Let the model be that of the best part."""
        self.model.load_state_dict(self._best_parameters)

    def rank(self, task: HeldOut, progress: Progress) -> Rankings:
        """Rank each user's target as the model is now."""
        self.model.train(mode=False)
        return rank(self.search, self.data, task, progress)

    def _step(self) -> float:
        """One batch; its time, with that of making it, is added to what is spent."""
        began = time.process_time()
        share = min(1.0, self.seconds / (60 * self.minutes))
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min((share + 1e-3) / WARM_UP, (1 - share) / (1 - WARM_UP))
        prefixes = self._next_batch()
        tokens, real = self.data.tokens.batch([leaves[:-1] for leaves in prefixes])
        labels = torch.from_numpy(self.data.tokens.items[[leaves[-1] for leaves in prefixes]])
        loss: Tensor = self.model(input_ids=tokens, attention_mask=real, labels=labels).loss
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.samples += len(labels)
        self.seconds += time.process_time() - began
        return float(loss.detach())

    def _next_batch(self) -> list[IntArray]:
        """Prefixes of about one length, each with its target at the end."""
        if not self._left:
            self._left = self._pass(self.passes)
            self.passes += 1
        return self._left.pop()

    def _pass(self, number: int) -> list[list[IntArray]]:
        generator = np.random.default_rng((SEED, number))
        prefixes = random_prefixes(self._histories, generator)
        return [[prefixes[at] for at in batch] for batch in batches(prefixes, BATCH, generator)]

    def save(self, path: Path) -> None:
        """Write the state whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best_parameters,
            "random": torch.get_rng_state(),
            "spent": (self.seconds, self.samples, self.passes, len(self._left)),
            "losses": self._losses,
            "rows": self.rows,
        }
        save(path, self.identity(), state)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            StageError: it is damaged, or of other data or another time.
        """
        state = load_own(path, self.identity())
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._best_parameters = state["best"]
        torch.set_rng_state(state["random"])
        self.seconds, self.samples, self.passes, left = state["spent"]
        self._left = self._pass(self.passes - 1)[:left] if left else []
        self._losses, self.rows = list(state["losses"]), list(state["rows"])


def train(training: T5Training, task: HeldOut, output: Path, progress: Progress) -> None:
    """Train to the end of the time, from where an earlier call with this `output` was stopped.

    `output` holds `last.ckpt`; the model ends as the part with the best validation left it.

    Raises:
        StageError: `output` holds a training of other data or another time.
        TrainingError: the loss is no longer finite.
    """
    output.mkdir(parents=True, exist_ok=True)
    last = output / "last.ckpt"
    if last.is_file():
        training.restore(last)
    while not training.is_over():
        while not training.part_is_learned():
            training.learn(CHECKPOINT_SECONDS, progress)
            training.save(last)
        training.validate(task, progress)
        training.save(last)
        row = training.rows[-1]
        progress.console.print(
            f"{row['minutes']:5.1f} min  {row['samples']:,} samples  loss {row['loss']:.3f}  "
            f"validation NDCG@10 {row['ndcg@10']:.4f}"
        )
    training.take_best()
