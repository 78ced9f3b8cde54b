import pytest

from model.tokens import Level, LevelKind, levels_from_json


def test_levels_survive_json() -> None:
    levels = (Level("category", LevelKind.CATEGORY, 7), Level("title", LevelKind.TEXT, 256))

    written = [level.to_json() for level in levels]

    assert written[0] == {"name": "category", "kind": "category", "codes": 7}
    assert levels_from_json(written) == levels


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        Level.from_json({"name": "colour", "kind": "colour", "codes": 2})
