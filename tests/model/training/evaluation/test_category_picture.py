from pathlib import Path

from PIL import Image

from model.training.evaluation.category_picture import plot_categories, prefix_counts
from tests.model.training.evaluation.toy_bundle import toy_bundle


def test_every_prefix_counts_the_items_below_it() -> None:
    counts = prefix_counts(toy_bundle().catalog)

    assert counts[()] == counts[("Home",)] == 12
    assert [counts["Home", room] for room in ("Kitchen", "Bath", "Garden")] == [4, 4, 4]
    assert len(counts) == 5


def test_the_picture_is_written_whole(tmp_path: Path) -> None:
    plot_categories(toy_bundle(), tmp_path / "tree.png")

    assert [path.name for path in tmp_path.iterdir()] == ["tree.png"]
    with Image.open(tmp_path / "tree.png") as picture:
        # A white page, and below it more colours than text and frame would have.
        colours = picture.convert("RGB").getcolors(1_000_000)
    assert colours is not None
    assert len(colours) > 10
