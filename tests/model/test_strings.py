import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import strings as strings_module
from model.strings import StringIndex, StringTable, string_hash

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(texts=st.lists(TEXTS))
def test_a_table_returns_what_was_put_in(texts: list[str]) -> None:
    table = StringTable.build(texts)

    assert len(table) == len(texts)
    assert [table[number] for number in range(len(texts))] == texts


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["", "é", "", "日本", "\0", "👩‍👩‍👧"]])
def test_empty_and_wide_strings(texts: list[str]) -> None:
    table = StringTable.build(texts)

    assert [table[number] for number in range(len(texts))] == texts
    assert table.blob.dtype == np.uint8


@given(texts=st.lists(TEXTS, unique=True), stranger=TEXTS)
def test_an_index_finds_every_string(texts: list[str], stranger: str) -> None:
    index = StringIndex.build(texts)

    for number, text in enumerate(texts):
        assert index.candidates(text).tolist() == [number]
    if stranger not in texts:
        assert index.candidates(stranger).tolist() == []


@pytest.mark.parametrize("shared", [0, 5, 2**64 - 1])
def test_strings_of_one_hash_are_all_candidates(
    monkeypatch: pytest.MonkeyPatch, shared: int
) -> None:
    hashes = {"a": shared, "b": 7, "c": shared, "d": 2**63, "e": shared}
    monkeypatch.setattr(strings_module, "string_hash", hashes.__getitem__)

    index = StringIndex.build(list(hashes))

    assert sorted(index.candidates("c").tolist()) == [0, 2, 4]
    assert index.candidates("b").tolist() == [1]
    assert index.candidates("d").tolist() == [3]


def test_the_hash_never_changes() -> None:
    # Bundles on disk hold these numbers.
    assert string_hash("") == 13020603013274838756
    assert string_hash("B00004YWK2") == 9388386669743622125
    assert string_hash("日本") == 4223062404410717160


def test_half_a_surrogate_pair_is_a_string_that_no_index_holds() -> None:
    index = StringIndex.build(["a", "\ufffd", "?"])

    assert index.candidates("\ud800").tolist() == []
