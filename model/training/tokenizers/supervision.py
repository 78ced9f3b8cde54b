"""Codes that tell the category: supervision of learned levels (HiD-VAE, arXiv 2508.04618).

The sum of an item's first l codewords has to tell the first l names of its category path, by one
linear classifier per depth. Left out of the paper's: drawing that sum to an embedding of the name,
and the penalty for items that share an ID, which buckets resolve.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

from model.errors import ConfigError
from model.taxonomy import common_root
from model.training.tokenizers.config import TokenizeConfig
from model.types import CategoryPath, IntArray

UNKNOWN = -100
"""Label of an item whose path is not as deep; `cross_entropy` passes over it."""


def category_labels(paths: Sequence[CategoryPath], config: TokenizeConfig) -> IntArray:
    """Return what the codes of each depth have to tell, int64 [N, depths].

    Depth l numbers the first l names below the root that all paths share; all are `UNKNOWN` where
    these are the same for every item. There are as many depths as levels, none without
    `category_weight`.

    Raises:
        ConfigError: there is a `category_weight` and nothing to tell.
    """
    if not config.category_weight:
        return np.empty((len(paths), 0), dtype=np.int64)
    root = len(common_root(paths))
    ends = range(root + 1, root + config.levels + 1)
    columns = [_numbered([path[root:end] for path in paths], end - root) for end in ends]
    is_telling = [column.max(initial=UNKNOWN) > 0 for column in columns]
    if not any(is_telling):
        raise ConfigError(
            f"tokenize.category_weight {config.category_weight} has nothing to work on: the "
            "catalogue has no two categories; leave it out"
        )
    # A depth keeps its place: its names are told by as many codewords as it has.
    labels: IntArray = np.where(is_telling, np.stack(columns, axis=1), UNKNOWN)
    return labels


class CategoryClassifier(nn.Module):
    """One linear classifier per depth of the category tree that tells items apart."""

    def __init__(self, labels: IntArray, width: int) -> None:
        super().__init__()
        most = labels.max(axis=0, initial=UNKNOWN).tolist()
        self.depths = [depth for depth, label in enumerate(most) if label != UNKNOWN]
        self.heads = nn.ModuleList(nn.Linear(width, most[depth] + 1) for depth in self.depths)

    def loss(self, sums: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return the cross-entropy, summed over depths; 0 without any.

        Args:
            sums: of the first, the first two, ... codewords, [B, F] each.
            labels: [B, depths].
        """
        total = sums[0].new_zeros(())
        for head, depth in zip(self.heads, self.depths, strict=True):
            wanted = labels[:, depth]
            if bool((wanted != UNKNOWN).any()):  # else the mean would be over none
                said = head(sums[depth])
                total = total + functional.cross_entropy(said, wanted, ignore_index=UNKNOWN)
        return total


def _numbered(prefixes: Sequence[CategoryPath], depth: int) -> npt.NDArray[np.int64]:
    known = sorted({prefix for prefix in prefixes if len(prefix) == depth})
    number = {prefix: place for place, prefix in enumerate(known)}
    labels = (number.get(prefix, UNKNOWN) for prefix in prefixes)
    return np.fromiter(labels, dtype=np.int64, count=len(prefixes))
