"""The shape of a category tree against counts by hand."""

import math
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.training.evaluation.category_tree import category_tree
from tests.model.training.evaluation.toy_bundle import toy_bundle


def test_three_rooms_of_four_items() -> None:
    tree = category_tree(toy_bundle())

    (level,) = tree.levels
    assert (level.name, level.nodes, level.children, level.most_children) == ("category", 3, 3, 3)
    assert (level.items, level.most_items, level.filled) == (4, 4, 0)
    assert level.bits == pytest.approx(math.log2(3))
    assert (tree.depths, tree.cut) == ({1: 12}, 0)
    assert tree.sentence() == "Items by depth of their category path: 1: 12; cut: 0."


def test_levels_of_a_trained_bundle_nest(diffusion_bundle: Path) -> None:
    bundle = Bundle.open(diffusion_bundle)

    coarse, fine = category_tree(bundle).levels

    codes = bundle.catalog.codes
    assert coarse.nodes == len({int(code) for code in codes[:, 0]})
    assert fine.nodes == len({tuple(row) for row in codes[:, :2].tolist()})
    assert fine.children == pytest.approx(fine.nodes / coarse.nodes)
    assert coarse.bits < fine.bits <= math.log2(fine.nodes)
    assert coarse.items == pytest.approx(len(bundle.catalog) / coarse.nodes)
