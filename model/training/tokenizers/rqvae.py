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
from model.training.tokenizers.supervision import CategoryClassifier, category_labels
from model.types import FloatArray, IntArray
from model.views import view


class RqvaeNetwork(nn.Module):
    """Encoder, residual codebooks, decoder."""

    def __init__(self, vectors: FloatArray, config: TokenizeConfig, labels: IntArray) -> None:
        super().__init__()
        self.config = config
        inner = [*config.hidden, config.width]
        self.encoder = perceptron([vectors.shape[1], *inner])
        self.decoder = perceptron([*inner[::-1], vectors.shape[1]])
        self.classifier = CategoryClassifier(labels, config.width)
        most = len(distinct_rows(vectors))
        self.quantizer = ResidualVQ(
            dim=config.width,
            codebook_size=tuple(min(codes, most) for codes in config.sizes()),
            kmeans_init=True,
            threshold_ema_dead_code=1,
            commitment_weight=config.commitment,
        )

    def loss(self, rows: Sequence[Tensor], progress: float) -> Tensor:
        """Return reconstruction plus commitment, and what the codes fail to tell of the category.

        The rows are the texts and the categories.
        """
        del progress
        vectors, labels = rows
        hidden = self.encoder(vectors)
        quantized, codes, commitment = self.quantizer(hidden)
        loss: Tensor = functional.mse_loss(self.decoder(quantized), vectors) + commitment.sum()
        books = zip(self.quantizer.codebooks, codes.T, strict=True)
        codewords = torch.stack([book[column] for book, column in books])
        # Straight through: the encoder is told what the classifiers say of the codewords.
        sums = [hidden + (known - hidden).detach() for known in codewords.cumsum(dim=0)]
        return loss + self.config.category_weight * self.classifier.loss(sums, labels)

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
    return [train_rqvae(vectors, config, category_labels(items.paths, config)).exported()]


def train_rqvae(vectors: FloatArray, config: TokenizeConfig, labels: IntArray) -> RqvaeNetwork:
    """Return the network trained on text vectors [N, E] of items with `labels` [N, depths]."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = RqvaeNetwork(vectors, config, labels)
        fit_network(network, [vectors, labels], config, "RQ-VAE")
    return network
