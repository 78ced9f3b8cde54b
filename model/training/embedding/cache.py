"""Text vectors kept on disk by content: sha256 of model and text -> vector.

A cache is a folder of shards, each an .npz of keys [n, 32] and vectors [n, E] that is renamed into
place once it is whole. A shard that cannot be read is ignored and its texts are encoded again.
"""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.types import FloatArray


class EmbeddingCache:
    """The vectors of one model."""

    def __init__(self, folder: Path, model: str) -> None:
        """Open the cache in `folder`; `model` names the function text -> vector."""
        self._folder = folder
        self._model = model
        self._vectors: dict[bytes, FloatArray] = {}
        for shard in sorted(folder.glob("*.npz")):
            self._vectors.update(_read_shard(shard))

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the texts whose vectors are not cached, in order."""
        return [text for text in texts if self._key(text) not in self._vectors]

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """Return the cached vectors [len(texts), E]; every text must be cached."""
        return np.stack([self._vectors[self._key(text)] for text in texts])

    def add(self, texts: Sequence[str], vectors: FloatArray) -> None:
        """Keep `vectors` [len(texts), E] as a new shard."""
        keys = [self._key(text) for text in texts]
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
        # The process id keeps two runs at once from writing into one temporary file.
        temporary = self._folder / f"{name}.{os.getpid()}.partial"
        with temporary.open("wb") as file:
            packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
            np.savez(file, keys=packed, vectors=vectors)
        temporary.replace(self._folder / f"{name}.npz")
        self._vectors.update(zip(keys, vectors, strict=True))

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._model}\0{text}".encode()).digest()


def _read_shard(shard: Path) -> dict[bytes, FloatArray]:
    try:
        # Opened here: numpy leaves the file open when it is no archive.
        with shard.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys, vectors = arrays["keys"], arrays["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}
