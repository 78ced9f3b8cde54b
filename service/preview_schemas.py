"""The answer of a bundle that need not serve anybody."""

from typing import Literal

from pydantic import BaseModel, Field

from service.schemas import Degraded, RecommendedItemBody


class PreviewAnswer(BaseModel):
    """What a bundle would recommend."""

    name: str
    bundle: str = Field(description="Its id.")
    decoder: Literal["autoregressive", "diffusion"]
    items: list[RecommendedItemBody]
    degraded: Degraded | None = Field(description="null for a full answer.")
    certified: bool | None = Field(description="As in a recommendation.")
    took_ms: float
    unknown_history_items: int
