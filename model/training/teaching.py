"""The last lessons: the generator alone learns what the finished item head says.

While both train together the head moves on, and dropout blurs the histories that it speaks of. Here
encoder and item vectors stay as they are, nothing is dropped, and the whole loss is to the head's
probabilities, summed per node (distillation: Hinton, Vinyals, Dean 2015). A pass costs less than an
epoch of training, because neither encoder nor head needs gradients.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from model.errors import TrainingError
from model.training.diffusion_losses import Masking, Objective, diffusion_losses
from model.training.diffusion_network import DiffusionNetwork
from model.training.evidence import batch_evidence
from model.training.losses import Positions, generator_loss, item_head_loss, path_choices
from model.training.network import Network
from model.training.training_set import TrainingSet, batches, padded

WARM_UP_STEPS = 50
"""Until the optimizer's averages, which start anew, can be trusted."""


@dataclass(frozen=True)
class Lessons:
    """How long and how fast the generator is taught."""

    epochs: int
    learning_rate: float
    """The highest; it falls as a cosine over all lessons."""
    batch_size: int
    seed: int
    masking: Masking
    """Of a denoiser's codes."""

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of `step`, counted from 0 over all `steps`."""
        rise = min(1.0, (step + 1) / WARM_UP_STEPS)
        fall = 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.learning_rate * rise * max(fall, 0.01)


class Teaching:
    """The state of the lessons; the network's other parameters are frozen by it."""

    def __init__(
        self, fabric: Fabric, network: Network, data: TrainingSet, lessons: Lessons
    ) -> None:
        self.fabric, self.network, self.data, self.lessons = fabric, network, data, lessons
        network.requires_grad_(requires_grad=False)
        taught = network.generator_parameters()
        for parameter in taught:
            parameter.requires_grad = True
        optimizer = torch.optim.AdamW(taught, lr=lessons.learning_rate, weight_decay=0.0)
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        self.epochs: list[dict[str, float]] = []
        """One row per finished lesson: loss, seconds, and what validation said after it."""

    def is_over(self) -> bool:
        """Whether all lessons have been given."""
        return len(self.epochs) >= self.lessons.epochs

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.epochs,
        }

    def steps(self, epoch: int) -> Iterator[tuple[float, float]]:
        """Give one lesson, yielding the share done and the loss after each step."""
        torch.manual_seed(self.lessons.seed * 100_003 + epoch)
        order = np.random.default_rng((self.lessons.seed, epoch, 1))
        plan = batches(self.data.windows, self.lessons.batch_size, order)
        self.network.eval()
        with torch.no_grad():
            items = self.network.item_vectors()
        for done, rows in enumerate(plan):
            loss = self._loss(items, rows)
            if not torch.isfinite(loss):
                message = f"the loss is {loss.item()} in lesson {epoch}; lower learning_rate"
                raise TrainingError(message)
            step = (epoch - 1) * len(plan) + done
            rate = self.lessons.learning_rate_at(step, self.lessons.epochs * len(plan))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            self.optimizer.step()
            yield (done + 1) / len(plan), loss.item()

    def _loss(self, items: torch.Tensor, rows: Any) -> torch.Tensor:
        """The generator's mean cross-entropy to the item head over all positions of a batch."""
        network = self.network
        windows = [self.data.windows[row] for row in rows]
        leaves, real = (tensor.to(items.device) for tensor in padded(windows))
        predicted = real[:, 1:]
        with torch.no_grad():
            h = network.history_encoder(items[leaves[:, :-1]])[predicted]
        targets = leaves[:, 1:][predicted]
        evidence = batch_evidence(network, self.data.transitions, windows, self.data.popularity)
        positions = Positions(h, targets, evidence)
        if isinstance(network, DiffusionNetwork):
            objective = Objective(self.lessons.masking, distillation=1.0)
            return diffusion_losses(network, positions, items, objective)[1]
        tree = network.tree(items)
        choices = path_choices(network, targets, tree)
        with torch.no_grad():
            _, taught = item_head_loss(network, positions, items, choices)
        return generator_loss(network, positions, tree, choices, taught, share=1.0)
