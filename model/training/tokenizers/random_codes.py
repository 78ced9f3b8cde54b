"""Codes without meaning: what a generator makes of the tree alone."""

from model.item_features import ItemFeatures
from model.quantizers import HashQuantizer
from model.tokens import LevelKind
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.levels import numbered_levels


def fit_random_codes(items: ItemFeatures, config: TokenizeConfig) -> list[HashQuantizer]:
    """Return the quantizer; nothing of `items` is looked at."""
    del items
    return [HashQuantizer(numbered_levels(LevelKind.RANDOM, [config.codes] * config.levels))]
