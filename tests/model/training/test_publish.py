"""The shelf of published bundles, and the gate in front of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle, read_manifest, seal
from model.errors import BundleError, PublishError
from model.query import Query
from model.recommender import Recommender
from model.training.publish import PublishConfig, current_bundle, publish

CONFIG = PublishConfig(users=100)


@pytest.fixture(scope="module")
def worse(shop_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle, of the same shop, that has forgotten half of what it knew."""
    folder = tmp_path_factory.mktemp("worse") / "bundle"
    shutil.copytree(shop_bundle, folder)
    vectors = np.load(folder / "node_vectors.npy")
    noise = np.random.default_rng(0).normal(0, vectors.std(), vectors.shape)
    np.save(folder / "node_vectors.npy", (vectors + noise).astype(np.float32))
    manifest = read_manifest(folder)
    norm = float(np.linalg.norm(np.load(folder / "node_vectors.npy"), axis=1).max()) * 1.001
    score = manifest.score.model_copy(update={"largest_item_norm": norm})
    manifest = manifest.model_copy(update={"score": score})
    (folder / "golden.json").write_text("[]", encoding="utf-8")
    seal(folder, manifest)
    recommender = Recommender(Bundle.open(folder))
    history = [recommender.bundle.catalog.item_id(5)]
    answer = recommender.recommend(Query(history)).items
    case = {
        "history": history,
        "items": [item.item_id for item in answer],
        "scores": [item.score for item in answer],
    }
    (folder / "golden.json").write_text(json.dumps([case]), encoding="utf-8")
    seal(folder, manifest)
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


@pytest.fixture
def prepared(shop_bundle: Path) -> Path:
    return shop_bundle.parent / "run" / "prepared"


def on(shelf: Path) -> tuple[str, list[str]]:
    """The id of the current bundle, and all that lies on the shelf."""
    current = current_bundle(shelf)
    assert current is not None
    return current.bundle_id, sorted(path.name for path in shelf.iterdir())


def test_the_first_bundle_is_published_and_a_worse_one_is_not(
    shop_bundle: Path, worse: Path, shelf: Path, prepared: Path
) -> None:
    done = publish(CONFIG, shop_bundle, shelf, prepared)
    bundle_id = read_manifest(shop_bundle).bundle_id
    assert (done.bundle, done.former) == (bundle_id, None)
    assert done.ndcg is not None
    before = on(shelf)
    assert before == (bundle_id, sorted([bundle_id, "current"]))
    # 1. A worse one changes nothing.
    with pytest.raises(PublishError, match=r"but 0\.\d{4} by the current bundle.*largest_loss"):
        publish(CONFIG, worse, shelf, prepared)
    assert on(shelf) == before
    # 2. Unless so much may be lost; the former stays on the shelf.
    allowed = publish(PublishConfig(users=100, largest_loss=1), worse, shelf, prepared)
    assert allowed.former == bundle_id
    assert allowed.former_ndcg == done.ndcg
    assert allowed.ndcg is not None
    assert allowed.ndcg < done.ndcg
    worse_id = read_manifest(worse).bundle_id
    assert on(shelf) == (worse_id, sorted([bundle_id, worse_id, "current"]))
    # 3. A better one always may.
    publish(CONFIG, shop_bundle, shelf, prepared)
    assert on(shelf)[0] == bundle_id


def test_the_link_is_relative_and_moves_with_its_shelf(
    shop_bundle: Path, shelf: Path, prepared: Path
) -> None:
    publish(CONFIG, shop_bundle, shelf, prepared)
    moved = shelf.rename(shelf.with_name("mounted"))
    assert Bundle.open(moved / "current").bundle_id == read_manifest(shop_bundle).bundle_id


def test_what_is_current_is_not_measured_again(
    shop_bundle: Path, shelf: Path, prepared: Path
) -> None:
    publish(CONFIG, shop_bundle, shelf, prepared)
    again = publish(PublishConfig(least_ndcg=1), shop_bundle, shelf, prepared)
    assert (again.bundle, again.ndcg) == (again.former, None)


def test_a_bundle_below_the_floor_is_refused(
    shop_bundle: Path, shelf: Path, prepared: Path
) -> None:
    with pytest.raises(PublishError, match=r"below least_ndcg 0\.9900: not published"):
        publish(PublishConfig(least_ndcg=0.99, users=100), shop_bundle, shelf, prepared)
    assert not shelf.exists()


def test_a_damaged_bundle_is_refused(
    shop_bundle: Path, shelf: Path, prepared: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(shop_bundle, damaged)
    (damaged / "trie.npy").write_bytes(b"nothing")
    with pytest.raises(BundleError):
        publish(CONFIG, damaged, shelf, prepared)
    assert not shelf.exists()


def test_a_damaged_current_bundle_does_not_stand_in_the_way(
    shop_bundle: Path, worse: Path, shelf: Path, prepared: Path
) -> None:
    publish(CONFIG, worse, shelf, prepared)
    place = (shelf / "current").resolve()
    (place / "trie.npy").write_bytes(b"nothing")
    # 1. Another one takes its place.
    assert publish(CONFIG, shop_bundle, shelf, prepared).former is None
    # 2. And the same one, whole, replaces it.
    publish(PublishConfig(users=100, largest_loss=1), worse, shelf, prepared)
    assert on(shelf)[0] == place.name


def test_a_folder_in_the_place_of_the_link_is_refused(
    shop_bundle: Path, shelf: Path, prepared: Path
) -> None:
    (shelf / "current").mkdir(parents=True)
    with pytest.raises(PublishError, match="is no link"):
        publish(CONFIG, shop_bundle, shelf, prepared)
