"""RQ-VAE over the text, the tokenizer of TIGER (arXiv 2305.05065).

An autoencoder whose bottleneck is quantized level by level on the residual; codebooks follow by
moving averages, start from k-means and revive unused codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ

from model.item_features import ItemFeatures
from model.quantizers import VectorQuantizer
from model.tokens import LevelKind
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import distinct_rows
from model.training.tokenizers.levels import numbered_levels
from model.training.tokenizers.networks import array_of, fit_network, layers_of, perceptron
from model.types import FloatArray
from model.views import view


class RqvaeNetwork(nn.Module):
    """Encoder, residual codebooks, decoder."""

    def __init__(self, vectors: FloatArray, config: TokenizeConfig) -> None:
        super().__init__()
        inner = [*config.hidden, config.width]
        self.encoder = perceptron([vectors.shape[1], *inner])
        self.decoder = perceptron([*inner[::-1], vectors.shape[1]])
        self.quantizer = ResidualVQ(
            dim=config.width,
            num_quantizers=config.levels,
            codebook_size=min(config.codes, len(distinct_rows(vectors))),
            kmeans_init=True,
            threshold_ema_dead_code=1,
            commitment_weight=config.commitment,
        )

    def loss(self, rows: Sequence[Tensor], progress: float) -> Tensor:
        """Return reconstruction plus commitment."""
        del progress
        quantized, _, commitment = self.quantizer(self.encoder(rows[0]))
        loss: Tensor = functional.mse_loss(self.decoder(quantized), rows[0]) + commitment.sum()
        return loss

    @torch.no_grad()
    def codes(self, vectors: Tensor) -> Tensor:
        """Return the codes [N, levels], as the network itself sees them."""
        _, codes, _ = self.quantizer(self.encoder(vectors))
        found: Tensor = codes
        return found

    def exported(self) -> VectorQuantizer:
        """Return the quantizer of all levels."""
        books = tuple(array_of(book) for book in self.quantizer.codebooks)
        levels = numbered_levels(LevelKind.TEXT, [len(book) for book in books])
        return VectorQuantizer(levels, ("text",), books, (layers_of(self.encoder),))


def fit_rqvae(items: ItemFeatures, config: TokenizeConfig) -> list[VectorQuantizer]:
    """Return the quantizer; none where all items have the same text."""
    vectors = view("text", items, {}).vectors
    if len(distinct_rows(vectors)) < 2:
        return []
    return [train_rqvae(vectors, config).exported()]


def train_rqvae(vectors: FloatArray, config: TokenizeConfig) -> RqvaeNetwork:
    """Return the network trained on text vectors [N, E]."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = RqvaeNetwork(vectors, config)
        fit_network(network, [vectors], config, "RQ-VAE")
    return network
