"""Settings of the stage `tokenize`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from model.tokens import MAX_CODES

Method = Literal["kmeans", "cofirec", "simcit", "residual_kmeans", "rqvae", "opq", "random"]

OPTIONS: Final[Mapping[str, tuple[Method, ...]]] = {
    "balanced": ("kmeans", "residual_kmeans", "simcit"),
    "category_weight": ("rqvae", "simcit"),
    "level_codes": ("residual_kmeans", "rqvae", "simcit"),
}
"""What only some methods know; without meaning for the others."""


class TokenizeConfig(BaseModel):
    """Settings of the stage `tokenize`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = Field(
        default="kmeans",
        description="How items get the codes below their category: 'kmeans' (CoFiRec's levels by "
        "k-means), 'cofirec' (as published), 'simcit', 'residual_kmeans', 'rqvae', 'opq' or "
        "'random'.",
    )
    codes: int = Field(
        default=MAX_CODES, ge=2, le=MAX_CODES, description="Most codes of one level."
    )
    category_levels: int = Field(
        default=1,
        ge=1,
        le=3,
        description="Levels over which a category path is spread: a single one holds whole paths, "
        "of two or three each holds one more name, and deeper paths are cut.",
    )
    category_clusters: int = Field(
        default=32,
        ge=2,
        le=MAX_CODES,
        description="Clusters of the text that stand in for categories where no item has a path.",
    )
    levels: int = Field(
        default=3,
        ge=1,
        le=8,
        description="Levels below the category, of methods that do not have one per text.",
    )
    collaborative: bool = Field(
        default=True, description="Whether codes know who is bought with whom; for ablations."
    )
    views: tuple[str, ...] | None = Field(
        default=None,
        description="What 'simcit' fuses: category, title, description, brand, text, collaborative "
        "and the names of embedding columns; all but the text as one when not given.",
    )
    width: int = Field(
        default=32, ge=1, le=1024, description="Width of what a learned encoder's codebooks hold."
    )
    hidden: tuple[int, ...] = Field(
        default=(512, 256, 128), description="Widths of a learned encoder's hidden layers."
    )
    epochs: int = Field(default=200, ge=1, description="Epochs of a learned encoder.")
    batch_size: int = Field(default=1024, ge=2, description="Items per step of a learned encoder.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of a learned encoder.")
    commitment: float = Field(
        default=0.25, ge=0, description="Weight of the commitment loss of 'cofirec' and 'rqvae'."
    )
    temperature: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(1.0, 0.05), description="Of 'simcit': its soft assignment at the start and end."
    )
    balanced: bool = Field(
        default=False,
        description="Whether codes shall be had by about as many items each, by Sinkhorn's "
        "assignment while codebooks are learned; of 'kmeans', 'residual_kmeans' and 'simcit'.",
    )
    category_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the loss by which the first l codes below the category have to tell "
        "the category's first l names (HiD-VAE); of 'rqvae' and 'simcit'.",
    )
    level_codes: tuple[Annotated[int, Field(ge=2, le=MAX_CODES)], ...] | None = Field(
        default=None,
        description="Most codes of each of the `levels`, as [64, 128, 256], which grows (HG-Rec); "
        "`codes` when not given. Of 'residual_kmeans', 'rqvae' and 'simcit'.",
    )
    iterations: int = Field(default=25, ge=1, le=1000, description="Iterations of k-means.")
    collaborative_dimensions: int = Field(
        default=64, ge=1, le=512, description="Width of the collaborative vectors."
    )
    collaborative_window: int = Field(
        default=5, ge=1, le=100, description="Events of a user within which items co-occur."
    )
    ridge: float = Field(
        default=10.0, gt=0, description="Penalty of the regression from text to collaborative."
    )
    level_order: list[str] | None = Field(
        default=None,
        description="Names of the levels in the order of the semantic ID, residual levels aside; "
        "for ablations, since prefixes are then no longer ranges of the taxonomy.",
    )
    fitted: Path | None = Field(
        default=None,
        description="Tokenized folder of another catalogue: its codebooks and encoders give the "
        "codes below the category, and nothing but the category is fitted. Needs the same "
        "sentence encoder for both.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of all that is drawn.")

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> Self:
        for name in self._options():
            if self.method not in OPTIONS[name]:
                known = ", ".join(OPTIONS[name])
                message = f"{name} is known to {known} only, not to method {self.method!r}"
                raise ValueError(message)
        if self.level_codes is not None and len(self.level_codes) != self.levels:
            message = f"level_codes {self.level_codes} must name {self.levels}, as many as `levels`"
            raise ValueError(message)
        return self

    def sizes(self) -> tuple[int, ...]:
        """Return the most codes of each of the `levels`."""
        return self.level_codes or (self.codes,) * self.levels

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave out options that are not taken.

        A run knows its settings by their text: one from before there was an option goes on.
        """
        idle = OPTIONS.keys() - self._options()
        return [(name, value) for name, value in super().__repr_args__() if name not in idle]

    def _options(self) -> list[str]:
        """The options that are taken."""
        fields = type(self).model_fields
        return [name for name in OPTIONS if getattr(self, name) != fields[name].default]
