"""Settings of the stage `tokenize`."""

from pydantic import BaseModel, ConfigDict, Field

from model.tokens import MAX_CODES


class TokenizeConfig(BaseModel):
    """Settings of the stage `tokenize`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    codes: int = Field(
        default=MAX_CODES, ge=2, le=MAX_CODES, description="Most codes of one level."
    )
    category_levels: int = Field(
        default=1, ge=1, le=3, description="Levels over which a category path is spread."
    )
    category_clusters: int = Field(
        default=32,
        ge=2,
        le=MAX_CODES,
        description="Clusters of the text that stand in for categories where no item has a path.",
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
    seed: int = Field(default=0, ge=0, description="Seed of k-means and of the randomised SVD.")
