"""What the levels of a tokenizer are called."""

from collections.abc import Sequence

from model.tokens import Level, LevelKind

TEXT_VIEWS = {"category", "title", "description", "remainder", "brand", "words", "text"}


def kind_of(views: Sequence[str]) -> LevelKind:
    """Return what codes stand for that are made from `views`."""
    if set(views) <= TEXT_VIEWS:
        return LevelKind.TEXT
    return LevelKind.COLLABORATIVE if set(views) == {"collaborative"} else LevelKind.FUSED


def numbered_levels(kind: LevelKind, sizes: Sequence[int]) -> tuple[Level, ...]:
    """Return the levels code_1, code_2, ... with `sizes` codes."""
    return tuple(Level(f"code_{number}", kind, size) for number, size in enumerate(sizes, 1))
