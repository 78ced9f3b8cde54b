"""What the tokenizers that learn an encoder share: perceptrons, their export, the training loop."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from model.item_features import ItemFeatures
from model.quantizers import Layer, Layers
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import distinct_rows, one_thread
from model.types import AnyArray, FloatArray
from model.views import view


class TokenizerNetwork(Protocol):
    """A module that is trained on items alone."""

    def loss(self, rows: Sequence[Tensor], progress: float) -> Tensor:
        """Return the loss of a batch.

        Args:
            rows: per view, the vectors [B, E] of the batch's items.
            progress: share of the training that is done, 0 to below 1.
        """


def perceptron(widths: Sequence[int], *, bias: bool = True) -> nn.Sequential:
    """Return affine maps between `widths` with SiLU between them; see `quantizers.perceive`."""
    layers: list[nn.Module] = []
    for given, wanted in pairwise(widths):
        layers += [nn.Linear(given, wanted, bias=bias), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def layers_of(network: nn.Sequential) -> Layers:
    """Return a perceptron as plain arrays."""
    return tuple(_layer(module) for module in network if isinstance(module, nn.Linear))


def array_of(tensor: Tensor) -> FloatArray:
    """Return a tensor as an array of its own."""
    array: FloatArray = np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
    return array


def telling_views(names: Sequence[str], items: ItemFeatures) -> dict[str, FloatArray]:
    """Return the views [N, E] of these names, without those that are the same for all items."""
    views = {name: view(name, items, {}).vectors for name in names}
    return {name: vectors for name, vectors in views.items() if len(distinct_rows(vectors)) > 1}


def fit_network(
    network: Any, views: Sequence[AnyArray], config: TokenizeConfig, title: str
) -> None:
    """Train a `TokenizerNetwork` on the items' views [N, E], and leave it in evaluation mode.

    What else its loss reads of each item may stand among the views.

    AdamW over shuffled batches; the same seed gives the same network on the same machine, in one
    thread: a step is hundreds of small operations, and threads that wait for each other after every
    one cost a busy machine many times what they save an idle one.
    """
    with one_thread():
        _train(network, views, config, title)
    network.eval()


def _train(network: Any, views: Sequence[AnyArray], config: TokenizeConfig, title: str) -> None:
    rows = [torch.from_numpy(view) for view in views]
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    network.train()
    epochs = range(config.epochs)
    for epoch in track(epochs, description=title, console=Console(stderr=True), transient=True):
        shuffled = torch.randperm(len(rows[0]))
        for batch in torch.split(shuffled, config.batch_size):
            loss = network.loss([view[batch] for view in rows], epoch / config.epochs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _layer(linear: nn.Linear) -> Layer:
    weight = array_of(linear.weight.T)
    bias = array_of(linear.bias) if linear.bias is not None else np.zeros_like(weight[0])
    return Layer(weight, bias)
