"""Settings of the stage `tokenize`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from model.tokens import MAX_CODES

Method = Literal["kmeans", "cofirec", "simcit", "residual_kmeans", "rqvae", "opq", "random"]


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
