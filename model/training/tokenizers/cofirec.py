"""CoFiRec's tokenizer as published (arXiv 2511.22707).

The text levels share one semantic encoder and have a codebook each; the collaborative level has an
encoder of its own. A level does not see the codes before it. Trained on reconstruction and
commitment; codebooks follow by moving averages, start from k-means and revive unused codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from model.item_features import ItemFeatures
from model.quantizers import VectorQuantizer
from model.tokens import Level
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import distinct_rows
from model.training.tokenizers.levels import kind_of
from model.training.tokenizers.networks import (
    array_of,
    fit_network,
    layers_of,
    perceptron,
    telling_views,
)
from model.types import FloatArray

LEVELS = ("title", "description", "collaborative")


class CofirecNetwork(nn.Module):
    """Encoders, decoders and codebooks of the levels, which are named as their views."""

    def __init__(self, views: dict[str, FloatArray], config: TokenizeConfig) -> None:
        super().__init__()
        self.levels = list(views)
        widths = {_encoder(name): vectors.shape[1] for name, vectors in views.items()}
        inner = [*config.hidden, config.width]
        self.encoders = nn.ModuleDict({k: perceptron([w, *inner]) for k, w in widths.items()})
        self.decoders = nn.ModuleDict({k: perceptron([*inner[::-1], w]) for k, w in widths.items()})
        self.quantizers = nn.ModuleDict(
            {
                name: VectorQuantize(
                    dim=config.width,
                    codebook_size=min(config.codes, len(distinct_rows(vectors))),
                    kmeans_init=True,
                    threshold_ema_dead_code=1,
                    commitment_weight=config.commitment,
                )
                for name, vectors in views.items()
            }
        )

    def loss(self, rows: Sequence[Tensor], progress: float) -> Tensor:
        """Return reconstruction plus commitment, summed over the levels."""
        del progress
        total = rows[0].new_zeros(())
        for name, vectors in zip(self.levels, rows, strict=True):
            hidden = self.encoders[_encoder(name)](vectors)
            quantized, _, commitment = self.quantizers[name](hidden)
            rebuilt = self.decoders[_encoder(name)](quantized)
            total = total + functional.mse_loss(rebuilt, vectors) + commitment.sum()
        return total

    @torch.no_grad()
    def codes(self, name: str, vectors: Tensor) -> Tensor:
        """Return the codes [N] of one level, as the network itself sees them."""
        _, codes, _ = self.quantizers[name](self.encoders[_encoder(name)](vectors))
        found: Tensor = codes
        return found

    def exported(self) -> list[VectorQuantizer]:
        """Return one quantizer per level."""
        return [self._exported(name) for name in self.levels]

    def _exported(self, name: str) -> VectorQuantizer:
        book = array_of(self.quantizers[name].codebook)  # type: ignore[arg-type]
        layers = layers_of(self.encoders[_encoder(name)])  # type: ignore[arg-type]
        level = Level(name, kind_of([name]), len(book))
        return VectorQuantizer((level,), (name,), (book,), (layers,))


def fit_cofirec(items: ItemFeatures, config: TokenizeConfig) -> list[VectorQuantizer]:
    """Return one quantizer per level that tells items apart."""
    return train_cofirec(cofirec_views(items, config), config).exported()


def cofirec_views(items: ItemFeatures, config: TokenizeConfig) -> dict[str, FloatArray]:
    """Return the levels' views [N, E]; one that is the same for all items is left out."""
    names = [name for name in LEVELS if name != "collaborative" or config.collaborative]
    return telling_views(names, items)


def train_cofirec(views: dict[str, FloatArray], config: TokenizeConfig) -> CofirecNetwork:
    """Return the trained network of some views; without any it has no levels."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = CofirecNetwork(views, config)
        if views:
            fit_network(network, list(views.values()), config, "CoFiRec")
    return network


def _encoder(level: str) -> str:
    return "collaborative" if level == "collaborative" else "semantic"
