"""The bundle's text encoder: a new item's texts to vectors, as training saw the catalogue's.

Needs neither torch nor scikit-learn. Shapes: N texts, E width.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.decoder import TextGraph
from model.errors import BundleError, ConfigError
from model.item_features import unit_rows
from model.types import FloatArray

BATCH = 32
"""Texts that the sentence encoder reads at once."""


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    @property
    def width(self) -> int:
        """E."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return vectors [N, E], of length 1 or zero."""


def open_text_encoder(folder: Path) -> TextEncoder:
    """Open a bundle's `text_encoder/`.

    Raises:
        BundleError: its files are missing or cannot be used.
        ConfigError: it is a sentence encoder and the package `tokenizers` is not installed.
    """
    try:
        facts = json.loads((folder / "encoder.json").read_bytes())
        kind = facts["kind"]
        return TfidfText.open(folder) if kind == "tfidf" else SentenceText.open(folder, facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} holds no text encoder that can be used ({error!r}): export it again"
        raise BundleError(message) from error


@dataclass(frozen=True)
class TfidfText:
    """TF-IDF: unit(unit((1 + log tf) idf) components)."""

    pattern: re.Pattern[str]
    vocabulary: Mapping[str, int]
    """Column of each word."""
    idf: FloatArray
    """[words]"""
    components: FloatArray
    """[words, E]"""

    @classmethod
    def open(cls, folder: Path) -> "TfidfText":
        """Read the parts that the stage `embed` wrote."""
        facts = json.loads((folder / "encoder.json").read_bytes())
        return cls(
            re.compile(facts["token_pattern"]),
            json.loads((folder / "vocabulary.json").read_bytes()),
            np.load(folder / "idf.npy", allow_pickle=False),
            np.load(folder / "components.npy", allow_pickle=False),
        )

    @property
    def width(self) -> int:
        """E."""
        return int(self.components.shape[1])

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return vectors [N, E]; zero where no word is known."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            found = Counter(self.pattern.findall(text.lower()))
            known = [(self.vocabulary[word], n) for word, n in found.items() if word in self]
            if known:
                columns, counts = np.array(known).T
                weights = (1.0 + np.log(counts)) * self.idf[columns]
                vectors[row] = (weights / np.linalg.norm(weights)) @ self.components[columns]
        return unit_rows(vectors)

    def __contains__(self, word: str) -> bool:
        return word in self.vocabulary


@dataclass(frozen=True)
class SentenceText:
    """A sentence transformer as a graph."""

    graph: TextGraph
    tokenizer: Any
    """`tokenizers.Tokenizer`."""
    width: int

    @classmethod
    def open(cls, folder: Path, facts: Mapping[str, Any]) -> "SentenceText":
        """Load graph and tokenizer."""
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415 - optional
        except ModuleNotFoundError as error:
            message = f"{folder} needs the package tokenizers: install cofine[new-items]"
            raise ConfigError(message) from error
        tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
        tokenizer.enable_truncation(int(facts["max_tokens"]))
        tokenizer.enable_padding()
        return cls(TextGraph(folder / "encoder.onnx"), tokenizer, int(facts["dimensions"]))

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return vectors [N, E]; zero for empty texts."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        given = sorted((row for row, text in enumerate(texts) if text), key=lambda r: len(texts[r]))
        for start in range(0, len(given), BATCH):
            rows = given[start : start + BATCH]
            tokens = self.tokenizer.encode_batch([texts[row] for row in rows])
            ids = np.array([each.ids for each in tokens], dtype=np.int64)
            mask = np.array([each.attention_mask for each in tokens], dtype=np.int64)
            vectors[rows] = self.graph.encode(ids, mask)
        return unit_rows(vectors)
