"""Quantizers as files, in a stage's folder and in a bundle: what gives a new item its codes.

`codebooks/<level>.npy` holds the codewords of a level, `codebooks/encoders/` the encoders' layers,
`codebooks/quantizers.json` how they fit together, `taxonomy.json` the category tree.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from model.errors import BundleError
from model.quantizers import (
    HashQuantizer,
    Layer,
    Layers,
    Quantizer,
    TaxonomyQuantizer,
    VectorQuantizer,
)
from model.taxonomy import Taxonomy
from model.tokens import Level, LevelKind
from model.types import AnyArray, FloatArray

QUANTIZERS = "codebooks/quantizers.json"
TAXONOMY = "taxonomy.json"


class _LevelFacts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^\w+$")
    kind: LevelKind
    codes: int = Field(ge=1)

    def level(self) -> Level:
        return Level(self.name, self.kind, self.codes)


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    levels: tuple[_LevelFacts, ...] = Field(min_length=1)

    def known_levels(self) -> tuple[Level, ...]:
        return tuple(level.level() for level in self.levels)


class _TaxonomyFacts(_Facts):
    kind: Literal["taxonomy"] = "taxonomy"


class _HashFacts(_Facts):
    kind: Literal["hash"] = "hash"


class _VectorFacts(_Facts):
    kind: Literal["vectors"] = "vectors"
    views: tuple[str, ...] = Field(min_length=1)
    encoder_layers: tuple[int, ...]
    attention_layers: int = Field(ge=0)


_AnyFacts = Annotated[_TaxonomyFacts | _HashFacts | _VectorFacts, Field(discriminator="kind")]
_ALL_FACTS = TypeAdapter(tuple[_AnyFacts, ...])


def quantizer_files(quantizers: Sequence[Quantizer]) -> tuple[str, dict[str, AnyArray]]:
    """Return the text of `QUANTIZERS`, and the arrays by path below codebooks/, without ".npy"."""
    facts: list[_AnyFacts] = []
    arrays: dict[str, AnyArray] = {}
    for quantizer in quantizers:
        levels = tuple(_LevelFacts.model_validate(each.to_json()) for each in quantizer.levels)
        if isinstance(quantizer, VectorQuantizer):
            facts.append(
                _VectorFacts(
                    levels=levels,
                    views=quantizer.views,
                    encoder_layers=tuple(map(len, quantizer.encoders)),
                    attention_layers=len(quantizer.attention),
                )
            )
            arrays |= dict(quantizer.books) | _encoder_arrays(quantizer)
        elif isinstance(quantizer, HashQuantizer):
            facts.append(_HashFacts(levels=levels))
        else:
            facts.append(_TaxonomyFacts(levels=levels))
    return _ALL_FACTS.dump_json(tuple(facts), indent=2).decode() + "\n", arrays


def read_quantizers(folder: Path) -> tuple[Quantizer, ...]:
    """Read the quantizers of a bundle or of a tokenized folder, coarse to fine.

    Raises:
        BundleError: a file is missing, or the files do not fit together.
    """
    try:
        facts = _ALL_FACTS.validate_json((folder / QUANTIZERS).read_bytes())
        return tuple(_read(folder, each) for each in facts)
    except FileNotFoundError as error:
        message = (
            f"{folder} has no {Path(str(error.filename)).name}, without which a new item gets no "
            "codes: tokenize and export it again"
        )
        raise BundleError(message) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        message = f"{folder / QUANTIZERS} and its files cannot be used: {error!r}"
        raise BundleError(message) from error


def _read(folder: Path, facts: _AnyFacts) -> Quantizer:
    levels = facts.known_levels()
    if isinstance(facts, _HashFacts):
        return HashQuantizer(levels)
    if isinstance(facts, _TaxonomyFacts):
        found = json.loads((folder / TAXONOMY).read_bytes())
        trees = tuple(Taxonomy.from_json(level) for level in found["levels"])
        return TaxonomyQuantizer(levels, tuple(found["root"]), trees)
    return VectorQuantizer(
        levels=levels,
        views=facts.views,
        codebooks=tuple(_array(folder, level.name) for level in levels),
        encoders=tuple(
            _layers(folder, f"{levels[0].name}_{number}", count)
            for number, count in enumerate(facts.encoder_layers)
        ),
        attention=_layers(folder, f"{levels[0].name}_attention", facts.attention_layers),
    )


def _encoder_arrays(quantizer: VectorQuantizer) -> dict[str, AnyArray]:
    name = quantizer.levels[0].name
    stacks = {f"{name}_{number}": layers for number, layers in enumerate(quantizer.encoders)}
    stacks[f"{name}_attention"] = quantizer.attention
    return {
        f"encoders/{stack}_{number}_{part}": getattr(layer, part)
        for stack, layers in stacks.items()
        for number, layer in enumerate(layers)
        for part in ("weight", "bias")
    }


def _layers(folder: Path, stack: str, count: int) -> Layers:
    parts = [
        [_array(folder, f"encoders/{stack}_{number}_{part}") for part in ("weight", "bias")]
        for number in range(count)
    ]
    return tuple(Layer(weight, bias) for weight, bias in parts)


def _array(folder: Path, name: str) -> FloatArray:
    array: FloatArray = np.load(folder / "codebooks" / f"{name}.npy", allow_pickle=False)
    return array
