"""The manifest: what a bundle says about itself, so that nothing has to be configured twice."""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = 5
"""Raised by every change that an older service could not read."""
BEAM_WIDTH_MAX = 10_000
"""Beams are memory and time of every request."""

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LevelFacts(BaseModel):
    """One level of the semantic ID, coarse to fine."""

    model_config = _FROZEN
    name: str
    kind: str
    codes: int = Field(ge=1)


class FileFacts(BaseModel):
    """One file of the bundle."""

    model_config = _FROZEN
    size_bytes: int = Field(ge=0)
    sha256: str


class AttributeFacts(BaseModel):
    """One attribute that items can be filtered by; number i lies in `attributes/<i>_*.npy`."""

    model_config = _FROZEN
    name: str
    type: Literal["str", "int", "float", "bool"]


class ScoreFacts(BaseModel):
    """The served ranking score: `log p + weight * (h . v + e - bound) + (1 + weight) * repeat`.

    `log p` is the generator's log-probability of the item, normalised over all items of the
    catalogue; `e` is the last evidence weight times the logarithm of the evidence that transitions
    give; `bound` is `|h| * largest_item_norm` and the largest e, so that the second term is never
    positive; `repeat` is `repeat_bias` for an item that the user has already seen and 0 for others.
    """

    model_config = _FROZEN
    fusion_weight: float = Field(ge=0)
    largest_item_norm: float = Field(ge=0)
    evidence_weights: tuple[float, ...] = Field(min_length=3)
    """Beta of the choices at depth 0 .. L, and of the item head: L + 2 numbers; see
    `model.transitions`."""
    repeat_bias: float
    """Log-odds that people come back to an item, against what the network expects."""

    def repeat_bonus(self) -> float:
        """What is added to the score of an item seen before; both parts of the score know of it."""
        return (1 + self.fusion_weight) * self.repeat_bias


class DiffusionFacts(BaseModel):
    """How a diffusion bundle unmasks codes; see `model.diffusion_search`."""

    model_config = _FROZEN
    ordered_levels: int = Field(ge=1)
    """Leading levels that are unmasked in order, the others by confidence."""
    diversity: bool
    """Whether beams are kept apart."""


class Manifest(BaseModel):
    """`manifest.json`, written last: a folder without it is no bundle."""

    model_config = _FROZEN
    format_version: int
    bundle_id: str
    """First 16 hexadecimal digits of a sha256 over everything else here, files' hashes included."""
    levels: tuple[LevelFacts, ...]
    items: int = Field(ge=1)
    nodes: int = Field(ge=2)
    width: int = Field(ge=1)
    history_length: int = Field(ge=1)
    beam_width: int = Field(ge=1, le=BEAM_WIDTH_MAX)
    score: ScoreFacts
    attributes: tuple[AttributeFacts, ...] = ()
    diffusion: DiffusionFacts | None = None
    """Of a bundle whose decoder is a masked-diffusion one; others leave it out."""
    facts: dict[str, object]
    """How the tokens and the network came about; for people, nothing reads it back."""
    files: dict[str, FileFacts]

    @property
    def decoder(self) -> Literal["autoregressive", "diffusion"]:
        """What writes the codes."""
        return "autoregressive" if self.diffusion is None else "diffusion"

    def identity(self) -> str:
        """What `bundle_id` has to be: a hash over the rest, and so over all files' hashes.

        Over what is written: bundles that do not need a newer field are as they were before it.
        """
        rest = self.model_dump(mode="json", exclude={"bundle_id"}, exclude_unset=True)
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
