"""A fitted tokenizer: the category levels, then the levels of one of the methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from model.item_features import ItemFeatures
from model.quantizer_files import QUANTIZERS, TAXONOMY, quantizer_files, read_quantizers
from model.quantizers import Quantizer, VectorQuantizer, assign
from model.tokens import Level
from model.training.stage_files import save_array, save_json, save_text
from model.training.tokenizers.category import CategoryLevels, fit_category
from model.training.tokenizers.cofirec import fit_cofirec
from model.training.tokenizers.config import Method, TokenizeConfig
from model.training.tokenizers.kmeans_levels import fit_kmeans_levels
from model.training.tokenizers.opq import fit_opq
from model.training.tokenizers.random_codes import fit_random_codes
from model.training.tokenizers.residual_kmeans import fit_residual_kmeans
from model.training.tokenizers.rqvae import fit_rqvae
from model.training.tokenizers.simcit import fit_simcit
from model.types import FloatArray, IntArray
from model.views import view

METHODS: Final[Mapping[Method, Callable[[ItemFeatures, TokenizeConfig], Sequence[Quantizer]]]] = {
    "kmeans": fit_kmeans_levels,
    "cofirec": fit_cofirec,
    "simcit": fit_simcit,
    "residual_kmeans": fit_residual_kmeans,
    "rqvae": fit_rqvae,
    "opq": fit_opq,
    "random": fit_random_codes,
}
"""What gives the codes below the category."""


@dataclass(frozen=True)
class Tokenizer:
    """Gives items codes; collisions are resolved by the stage, not here."""

    category: CategoryLevels
    below: tuple[Quantizer, ...]

    @classmethod
    def fit(cls, items: ItemFeatures, config: TokenizeConfig) -> Self:
        """Learn the codebooks of all levels from the catalogue.

        Raises:
            ConfigError: `config` names a view that the items do not have.
            BundleError: the folder `config.fitted` has no codebooks that can be used.
        """
        if config.fitted is None:
            below: Sequence[Quantizer] = METHODS[config.method](items, config)
        else:
            below = read_quantizers(config.fitted)[1:]  # the first is the category
        return cls(fit_category(items, config), tuple(below))

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """All quantizers, coarse to fine."""
        return (self.category.quantizer, *self.below)

    def levels(self) -> list[Level]:
        """Return the L levels that tell items apart, coarse to fine."""
        return [level for level in self._all_levels() if level.codes > 1]

    def assign(self, items: ItemFeatures) -> IntArray:
        """Return the codes int32 [N, L] of `items`, which may be others than those of `fit`."""
        return assign(self.quantizers, self.levels(), items)

    def facts(self, items: ItemFeatures) -> dict[str, Any]:
        """Return what report.json tells about fallbacks and dropped levels."""
        books: dict[str, FloatArray] = {}
        sources = self.category.facts(items)
        for quantizer in self.below:
            if isinstance(quantizer, VectorQuantizer) and len(quantizer.views) == 1:
                name = quantizer.levels[0].name
                sources[name] = view(quantizer.views[0], items, books).sources
                books |= quantizer.books
        dropped = [level.name for level in self._all_levels() if level.codes <= 1]
        return {"fallbacks": sources, "dropped_levels": dropped}

    def export(self, folder: Path) -> None:
        """Write codebooks/ and taxonomy.json: all that a new item needs to get its codes.

        A category level's codebook holds the mean text vector of each category.
        """
        facts, arrays = quantizer_files(self.quantizers)
        for name, array in (arrays | dict(self.category.codebooks)).items():
            save_array(folder / "codebooks" / f"{name}.npy", array)
        save_json(folder / TAXONOMY, self.category.to_json())
        save_text(folder / QUANTIZERS, facts)

    def _all_levels(self) -> list[Level]:
        return [level for quantizer in self.quantizers for level in quantizer.levels]
