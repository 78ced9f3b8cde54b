"""SimCIT: tokens from contrast between views, without reconstruction (arXiv 2506.16683).

Each view has an encoder; attention fuses the encodings; the fused vector is quantized residually
and softly, ever harder as the temperature falls. The sum of the codewords has to tell, by InfoNCE,
which item's view belongs to it, for every view. Codewords of a level are kept from pointing one
way. What is exported assigns hard. Codebooks start from k-means of the untrained encodings, where
the released code starts them at random; and the encoders are scaled before, so that the first
temperature is small beside the distances between items: an untrained perceptron of four layers
brings vectors of length 1 so near each other that every assignment would be noise, from which
training does not recover (one code of each level in use). Options: shares of the codes balanced
over a batch, and codes that have to tell the category.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.errors import ConfigError
from model.item_features import ItemFeatures
from model.quantizers import VectorQuantizer
from model.training.tokenizers.balance import balanced_shares
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.levels import kind_of, numbered_levels
from model.training.tokenizers.networks import (
    array_of,
    fit_network,
    layers_of,
    perceptron,
    telling_views,
)
from model.training.tokenizers.residual_kmeans import residual_codebooks
from model.training.tokenizers.supervision import CategoryClassifier, category_labels
from model.types import FloatArray, IntArray

CONTRAST = 0.07
"""Temperature of InfoNCE."""


class SimcitNetwork(nn.Module):
    """Encoders, attention, codebooks and the projection in which views are compared.

    Shapes: B items, V views, F width, L levels, K codes.
    """

    def __init__(
        self, views: dict[str, FloatArray], config: TokenizeConfig, labels: IntArray
    ) -> None:
        super().__init__()
        self.config = config
        self.views = list(views)
        self.encoders = nn.ModuleList(
            perceptron([vectors.shape[1], *config.hidden, config.width], bias=False)
            for vectors in views.values()
        )
        self.attention = perceptron([config.width, config.width, 1])
        self.projection = nn.Linear(config.width, config.width)
        rows = [torch.from_numpy(vectors) for vectors in views.values()]
        self._scale(rows)
        with torch.no_grad():
            _, fused = self(rows)
        books = residual_codebooks(array_of(fused), config)
        self.codebooks = nn.ParameterList([torch.from_numpy(book) for book in books])
        self.classifier = CategoryClassifier(labels, config.width)

    @torch.no_grad()
    def _scale(self, rows: Sequence[Tensor]) -> None:
        """Have each view's encodings vary by 1 per dimension, before they are trained."""
        for encode, view in zip(self.encoders, rows, strict=True):
            spread = encode(view).var(dim=0).mean().sqrt()
            last = [layer for layer in encode.children() if isinstance(layer, nn.Linear)][-1]
            last.weight /= spread

    def forward(self, rows: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Views [B, E] -> each view's encoding [B, F], and all of them fused [B, F]."""
        encoded = [encode(view) for encode, view in zip(self.encoders, rows, strict=True)]
        stacked = torch.stack(encoded)
        weights = torch.softmax(self.attention(stacked), dim=0)
        return encoded, (weights * stacked).sum(dim=0)

    def loss(self, rows: Sequence[Tensor], progress: float) -> Tensor:
        """Return InfoNCE between the codewords' sum and every view, plus the codewords' spread.

        The rows are the views' and, last, the categories, which the codewords have to tell, too.
        """
        first, last = self.config.temperature
        *rows, labels = rows
        encoded, fused = self(rows)
        sums = self._soft(fused, first * (last / first) ** progress)
        quantized = self.projection(sums[-1])
        total = _spread(list(self.codebooks))
        total = total + self.config.category_weight * self.classifier.loss(sums, labels)
        for given, hidden in zip(rows, encoded, strict=True):
            present = given.any(dim=1)
            if int(present.sum()) > 1:
                total = total + info_nce(quantized[present], self.projection(hidden[present]))
        return total

    def _soft(self, fused: Tensor, temperature: float) -> list[Tensor]:
        """Return the sums [B, F] of the first, the first two, ... of the soft codewords."""
        left, sums = fused, list[Tensor]()
        for book in self.codebooks:
            logits = -torch.cdist(left, book).square()
            # Gumbel noise lets a code be chosen that is not the nearest yet.
            noise = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-9, 1 - 1e-6)))
            scores = (logits + noise * temperature) / temperature
            balanced = self.config.balanced
            shares = balanced_shares(scores) if balanced else torch.softmax(scores, dim=1)
            left = left - shares @ book
            sums.append(fused - left)
        return sums

    @torch.no_grad()
    def codes(self, rows: Sequence[Tensor]) -> Tensor:
        """Return the hard codes [N, L], as the network itself sees them."""
        _, left = self(rows)
        columns = []
        for book in self.codebooks:
            nearest = torch.cdist(left, book).argmin(dim=1)
            left = left - book[nearest]
            columns.append(nearest)
        return torch.stack(columns, dim=1)

    def exported(self) -> VectorQuantizer:
        """Return the quantizer of all levels."""
        levels = numbered_levels(kind_of(self.views), [len(book) for book in self.codebooks])
        return VectorQuantizer(
            levels,
            tuple(self.views),
            tuple(array_of(book) for book in self.codebooks),
            tuple(layers_of(encode) for encode in self.encoders),  # type: ignore[arg-type]
            layers_of(self.attention),
        )


def info_nce(anchors: Tensor, views: Tensor) -> Tensor:
    """Return how badly `anchors` [B, F] tell their own of `views` [B, F] from all other vectors.

    NT-Xent from the anchors' side: other anchors are negatives too.
    """
    anchors, views = functional.normalize(anchors), functional.normalize(views)
    own = torch.eye(len(anchors), dtype=torch.bool)
    among = (anchors @ anchors.T / CONTRAST).masked_fill(own, -torch.inf)
    across = anchors @ views.T / CONTRAST
    return (torch.cat([among, across], dim=1).logsumexp(dim=1) - across.diagonal()).mean()


def fit_simcit(items: ItemFeatures, config: TokenizeConfig) -> list[VectorQuantizer]:
    """Return the quantizer; none where no view tells items apart.

    Raises:
        ConfigError: `views` names what the catalogue does not have, or nothing is left of it.
    """
    views = simcit_views(items, config)
    if not views:
        return []
    return [train_simcit(views, config, category_labels(items.paths, config)).exported()]


def simcit_views(items: ItemFeatures, config: TokenizeConfig) -> dict[str, FloatArray]:
    """Return the views [N, E]; one that is the same for all items is left out."""
    wanted = config.views if config.views is not None else _default_views(items)
    names = [name for name in wanted if name != "collaborative" or config.collaborative]
    if not names:
        raise ConfigError(f"tokenize.views {list(wanted)!r} leaves nothing to be quantized")
    return telling_views(names, items)


def train_simcit(
    views: dict[str, FloatArray], config: TokenizeConfig, labels: IntArray
) -> SimcitNetwork:
    """Return the network trained on views [N, E] of items with category `labels` [N, depths]."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = SimcitNetwork(views, config, labels)
        fit_network(network, [*views.values(), labels], config, "SimCIT")
    return network


def _default_views(items: ItemFeatures) -> tuple[str, ...]:
    return ("category", "title", "description", "brand", "collaborative", *items.embeddings)


def _spread(books: Sequence[Tensor]) -> Tensor:
    """Return the mean cosine between codewords of a level, summed over the levels."""
    means = [functional.normalize(book).mean(dim=0) for book in books]
    return torch.stack([mean.square().sum() for mean in means]).sum()
