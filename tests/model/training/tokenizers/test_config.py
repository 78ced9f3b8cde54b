"""Options are for the methods that know them."""

from typing import Any

import pytest
from pydantic import ValidationError

from model.training.tokenizers.config import OPTIONS, TokenizeConfig

TAKEN: dict[str, Any] = {"balanced": True, "category_weight": 0.1, "level_codes": [4, 8, 16]}


def test_options_are_refused_by_methods_that_do_not_know_them() -> None:
    assert TAKEN.keys() == OPTIONS.keys()
    for name, known in OPTIONS.items():
        TokenizeConfig.model_validate({"method": known[0], name: TAKEN[name]})
        with pytest.raises(ValidationError, match=rf"{name} is known to {known[0]}.*'opq'"):
            TokenizeConfig.model_validate({"method": "opq", name: TAKEN[name]})


def test_every_level_has_its_size() -> None:
    settings = TokenizeConfig(method="rqvae", level_codes=(4, 8), levels=2)

    assert settings.sizes() == (4, 8)
    assert TokenizeConfig(codes=16, levels=2).sizes() == (16, 16)
    with pytest.raises(ValidationError, match=r"\(4, 8\) must name 3"):
        TokenizeConfig(method="rqvae", level_codes=(4, 8))


def test_a_run_from_before_there_were_options_knows_its_settings_again() -> None:
    """`cofine run` compares settings by their text."""
    text = repr(TokenizeConfig(method="simcit"))

    assert not any(name in text for name in OPTIONS)
    assert "method='simcit'" in text
    assert "seed=0" in text
    assert "balanced=True" in repr(TokenizeConfig(method="simcit", balanced=True))
