"""Items that training never saw: from their texts to codes and vectors.

Everything comes from the bundle: text encoder, regression to collaborative vectors, codebooks,
`item_encoder.onnx`. Shapes: N items, K new ones, L levels, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.attributes import Scalar
from model.bundle import Bundle
from model.errors import BundleError, DataError
from model.insertion import NewItems
from model.item_features import (
    TEXT_FIELDS,
    ItemFeatures,
    category_text,
    concatenated_text,
    predict_from_text,
    unit_rows,
)
from model.quantizer_files import read_quantizers
from model.quantizers import Quantizer, VectorQuantizer, assign
from model.text_encoder import TextEncoder, open_text_encoder
from model.tokens import Level, levels_from_json
from model.types import CategoryPath, FloatArray
from model.views import VIEWS


@dataclass(frozen=True)
class NewItem:
    """What a shop says of an item."""

    item_id: str
    title: str = ""
    brand: str = ""
    description: str = ""
    paths: tuple[CategoryPath, ...] = ()
    """Category paths, the primary one first."""
    embeddings: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By the names of the catalogue's embedding columns; one that is missing counts as empty."""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    """What filters ask for; those that the bundle does not have are of no effect."""

    @property
    def path(self) -> CategoryPath:
        """The primary category path, () where there is none."""
        return self.paths[0] if self.paths else ()

    def texts(self) -> dict[str, str]:
        """Return the texts that are embedded, by the names of `TEXT_FIELDS`."""
        return {
            "category": category_text(self.path),
            "title": self.title.strip(),
            "description": self.description.strip(),
            "brand": self.brand.strip(),
        }


@dataclass(frozen=True)
class ItemEncoder:
    """What a bundle knows of making items: torch-free."""

    bundle: Bundle
    text_encoder: TextEncoder
    quantizers: tuple[Quantizer, ...]
    levels: tuple[Level, ...]
    collaborative_from_text: FloatArray
    """[4E + 1, Dc]"""

    @classmethod
    def open(cls, bundle: Bundle) -> "ItemEncoder":
        """Open a bundle's encoders.

        Raises:
            BundleError: the bundle lacks one, as bundles of earlier releases do.
            ConfigError: a sentence encoder needs a package that is not installed.
        """
        regression = bundle.path / "collaborative_from_text.npy"
        if not regression.is_file():
            message = f"{bundle.path} has no {regression.name}: tokenize and export it again"
            raise BundleError(message)
        return cls(
            bundle,
            open_text_encoder(bundle.path / "text_encoder"),
            read_quantizers(bundle.path),
            levels_from_json([level.model_dump() for level in bundle.manifest.levels]),
            np.load(regression, allow_pickle=False),
        )

    def features(self, items: Sequence[NewItem]) -> ItemFeatures:
        """Return what is known of `items`; nobody has looked at them yet.

        Raises:
            DataError: an embedding has another width than those of the catalogue.
        """
        texts = [item.texts() for item in items]
        vectors = {
            name: self.text_encoder.encode([text[name] for text in texts]) for name in TEXT_FIELDS
        }
        collaborative = predict_from_text(concatenated_text(vectors), self.collaborative_from_text)
        return ItemFeatures(
            item_ids=tuple(item.item_id for item in items),
            paths=tuple(item.path for item in items),
            words=tuple(item.title or item.description or item.brand for item in items),
            **vectors,
            collaborative=collaborative,
            is_observed=np.zeros(len(items), dtype=np.bool_),
            embeddings={
                name: _embeddings(name, items, width)
                for name, width in self.embedding_widths().items()
            },
        )

    def encode(self, items: Sequence[NewItem]) -> NewItems:
        """Return codes and vectors of `items`.

        Raises:
            DataError: an embedding has another width than those of the catalogue.
        """
        features = self.features(items)
        codes = assign(self.quantizers, self.levels, features)
        vectors = self.bundle.graphs.item_vectors(features.text(), codes)
        return NewItems(features.item_ids, codes, vectors)

    def embedding_widths(self) -> dict[str, int]:
        """Return the widths of the embedding columns that the quantizers read, by name."""
        return {
            name: len(layers[0].weight)
            for quantizer in self.quantizers
            if isinstance(quantizer, VectorQuantizer)
            for name, layers in zip(quantizer.views, quantizer.encoders, strict=False)
            if name not in VIEWS
        }


def _embeddings(name: str, items: Sequence[NewItem], width: int) -> FloatArray:
    vectors = np.zeros((len(items), width), dtype=np.float32)
    for row, item in enumerate(items):
        given = item.embeddings.get(name, ())
        if len(given) not in (0, width):
            raise DataError(
                f"embedding {name!r} of item_id {item.item_id!r} has {len(given)} numbers instead "
                f"of {width}"
            )
        vectors[row, : len(given)] = given
    return unit_rows(vectors)
