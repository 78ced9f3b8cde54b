"""Every method gives codes that the exported arrays give again, alone and in a batch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch

from model.errors import BundleError, ConfigError
from model.item_features import ItemFeatures
from model.quantizer_files import read_quantizers
from model.quantizers import assign
from model.tokens import levels_from_json
from model.training.embedding.embed import EmbedConfig, embed
from model.training.tokenizers.cofirec import cofirec_views, train_cofirec
from model.training.tokenizers.config import OPTIONS, Method, TokenizeConfig
from model.training.tokenizers.rqvae import train_rqvae
from model.training.tokenizers.simcit import info_nce, simcit_views, train_simcit
from model.training.tokenizers.supervision import category_labels
from model.training.tokenizers.tokenize import read_features, tokenize
from model.training.tokenizers.tokenizer import METHODS
from model.types import FloatArray
from model.views import view
from tests.model.training.tokenizers.shop import small_shop

METHOD_NAMES = get_args(Method)
SETTINGS: dict[str, Any] = {
    "codes": 8,
    "category_clusters": 4,
    "collaborative_dimensions": 8,
    "levels": 2,
    "width": 8,
    "hidden": [16],
    "epochs": 30,
    "batch_size": 20,
}


def config(method: str = "kmeans", **changes: Any) -> TokenizeConfig:
    return TokenizeConfig.model_validate(SETTINGS | {"method": method} | changes)


class Stages:
    """A small shop, embedded once for all methods; items have a column of pictures."""

    def __init__(self, folder: Path) -> None:
        self.prepared, self.embedded = folder / "prepared", folder / "embedded"
        small_shop().write(self.prepared)
        items = pl.read_parquet(self.prepared / "items.parquet")
        pictures = [[float(row % 4), 1.0, 0.5] if row % 7 else None for row in range(len(items))]
        column = pl.Series("embedding_picture", pictures, dtype=pl.List(pl.Float32))
        items.with_columns(column).write_parquet(self.prepared / "items.parquet")
        embed(EmbedConfig(model="tfidf", dimensions=16), self.prepared, self.embedded)

    def features(self, settings: TokenizeConfig) -> ItemFeatures:
        return read_features(settings, self.prepared, self.embedded)[0]

    def tokenized(self, settings: TokenizeConfig, output: Path) -> Path:
        tokenize(settings, self.prepared, self.embedded, output)
        return output


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"))


def rows(items: ItemFeatures, chosen: slice) -> ItemFeatures:
    """Some of the items, as new ones come."""
    vectors = ("category", "title", "description", "brand", "collaborative", "is_observed")
    return replace(
        items,
        **{name: getattr(items, name)[chosen] for name in ("item_ids", "paths", "words")},
        **{name: getattr(items, name)[chosen] for name in vectors},
        embeddings={name: values[chosen] for name, values in items.embeddings.items()},
    )


TAKEN: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in METHOD_NAMES),
    *((method, {"balanced": True}) for method in OPTIONS["balanced"]),
    *((method, {"category_weight": 0.5}) for method in OPTIONS["category_weight"]),
    *((method, {"level_codes": [4, 8]}) for method in OPTIONS["level_codes"]),
]


@pytest.mark.parametrize(("method", "option"), TAKEN)
def test_what_is_exported_gives_the_codes_of_the_catalogue(
    method: str, option: dict[str, Any], stages: Stages, tmp_path: Path
) -> None:
    settings = config(method, **option)
    folder = stages.tokenized(settings, tmp_path / "tokenized")
    items = stages.features(settings)
    levels = [
        level
        for level in levels_from_json(json.loads((folder / "levels.json").read_text()))
        if level.kind != "residual"
    ]

    quantizers = read_quantizers(folder)
    codes = np.load(folder / "codes.npy")[:, : len(levels)]

    assert np.array_equal(assign(quantizers, levels, items), codes)
    alone = [assign(quantizers, levels, rows(items, slice(n, n + 1)))[0] for n in range(40)]
    assert np.array_equal(alone, codes)
    assert levels[0].name == "category"
    sizes = [level.codes for level in levels[1:]]
    assert sizes == option.get("level_codes", sizes)
    assert len(np.unique(codes, axis=0)) > 8


def test_every_method_has_a_name() -> None:
    assert set(METHODS) == set(METHOD_NAMES)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_same_seed_gives_the_same_files(method: str, stages: Stages, tmp_path: Path) -> None:
    first = stages.tokenized(config(method), tmp_path / "first")
    second = stages.tokenized(config(method), tmp_path / "second")

    for path in sorted(path for path in first.rglob("*") if path.is_file()):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name


def test_cofirec_assigns_as_its_network(stages: Stages) -> None:
    items = stages.features(config())
    views = cofirec_views(items, config())
    network = train_cofirec(views, config("cofirec"))

    for quantizer in network.exported():
        name = quantizer.levels[0].name
        found = quantizer.codes(items, {})[:, 0]
        assert found.tolist() == network.codes(name, torch.from_numpy(views[name])).tolist()
        assert len(np.unique(found)) > 2


def test_rqvae_assigns_as_its_network(stages: Stages) -> None:
    items = stages.features(config())
    vectors = view("text", items, {}).vectors
    labels = category_labels(items.paths, config("rqvae"))
    network = train_rqvae(vectors, config("rqvae"), labels)

    found = network.exported().codes(items, {})

    assert found.tolist() == network.codes(torch.from_numpy(vectors)).tolist()
    assert len(np.unique(found, axis=0)) > 8


def test_simcit_assigns_as_its_network(stages: Stages) -> None:
    items = stages.features(config())
    views = simcit_views(items, config())
    labels = category_labels(items.paths, config("simcit"))
    network = train_simcit(views, config("simcit"), labels)

    found = network.exported().codes(items, {})

    expected = network.codes([torch.from_numpy(vectors) for vectors in views.values()])
    assert found.tolist() == expected.tolist()
    assert set(views) == {
        "category", "title", "description", "brand", "collaborative", "picture"
    }  # fmt: skip


def test_simcit_tells_items_better_apart_than_before_training(stages: Stages) -> None:
    items = stages.features(config())
    views, labels = simcit_views(items, config()), category_labels(items.paths, config())
    trained = train_simcit(views, config("simcit", epochs=60), labels)
    untrained = train_simcit(views, config("simcit", epochs=1, learning_rate=1e-12), labels)

    assert contrast(trained, views) < contrast(untrained, views)


def test_simcit_uses_its_codes_with_encoders_of_the_usual_depth() -> None:
    drawn = np.random.default_rng(3)
    groups = drawn.normal(size=(40, 64))[np.arange(400) % 40]
    noisy = [groups + 0.7 * drawn.normal(size=groups.shape) for _ in range(2)]
    unit = [(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4") for rows in noisy]
    views: dict[str, FloatArray] = dict(zip(["title", "description"], unit, strict=True))
    settings = TokenizeConfig(method="simcit", codes=32, epochs=30, batch_size=100)

    network = train_simcit(views, settings, np.zeros((400, 0), np.int64))
    codes = network.codes([torch.from_numpy(rows) for rows in views.values()])

    assert all(len(torch.unique(level)) > 16 for level in codes.T)
    assert len(torch.unique(codes, dim=0)) > 120


def contrast(network: Any, views: dict[str, FloatArray]) -> float:
    """InfoNCE of the hard codewords' sum with the title."""
    given = [torch.from_numpy(vectors) for vectors in views.values()]
    with torch.no_grad():
        codes = network.codes(given)
        total = sum(book[codes[:, level]] for level, book in enumerate(network.codebooks))
        encoded, _ = network(given)
        title = encoded[list(views).index("title")]
        return float(info_nce(network.projection(total), network.projection(title)))


def test_info_nce_is_least_where_each_finds_its_own() -> None:
    vectors = torch.eye(6)

    assert info_nce(vectors, vectors) < info_nce(vectors, vectors.roll(1, dims=0))


@pytest.mark.parametrize("method", ["kmeans", "cofirec", "simcit"])
def test_codes_can_leave_out_who_is_bought_with_whom(
    method: str, stages: Stages, tmp_path: Path
) -> None:
    settings = config(method, collaborative=False)
    items = stages.features(settings)
    mirrored = replace(items, collaborative=items.collaborative[::-1].copy())
    quantizers = METHODS[settings.method](items, settings)
    levels = [level for quantizer in quantizers for level in quantizer.levels]

    assert {level.kind for level in levels} <= {"text", "fused"}
    assert np.array_equal(assign(quantizers, levels, items), assign(quantizers, levels, mirrored))


def test_unknown_views_are_refused(stages: Stages) -> None:
    settings = config("simcit", views=["title", "smell"])

    with pytest.raises(ConfigError, match=r"'smell'.*picture"):
        METHODS["simcit"](stages.features(settings), settings)
    with pytest.raises(ConfigError, match="leaves nothing"):
        METHODS["simcit"](stages.features(settings), config("simcit", views=[]))


def test_random_codes_follow_the_id_and_nothing_else(stages: Stages) -> None:
    items = stages.features(config())
    (quantizer,) = METHODS["random"](items, config("random"))
    other = replace(items, title=items.title[::-1].copy())

    codes = quantizer.codes(items, {})

    assert np.array_equal(quantizer.codes(other, {}), codes)
    assert len(np.unique(codes[:, 0])) > 4


def test_without_its_files_nothing_is_assigned(stages: Stages, tmp_path: Path) -> None:
    folder = stages.tokenized(config("rqvae"), tmp_path / "tokenized")
    (folder / "codebooks" / "encoders" / "code_1_0_0_bias.npy").unlink()
    with pytest.raises(BundleError, match="code_1_0_0_bias"):
        read_quantizers(folder)
    (folder / "codebooks" / "quantizers.json").write_text('[{"kind": "magic"}]')
    with pytest.raises(BundleError, match="cannot be used"):
        read_quantizers(folder)
