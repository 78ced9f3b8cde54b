from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import strings as strings_module
from model.strings import StringIndex, StringTable, string_hashes
from model.types import AnyArray

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
    hashes = {b"a": shared, b"b": 7, b"c": shared, b"d": 2**63, b"e": shared, b"?": shared}

    def hashed(encoded: Sequence[bytes]) -> AnyArray:
        return np.array([hashes[each] for each in encoded], dtype=np.uint64)

    monkeypatch.setattr(strings_module, "string_hashes", hashed)
    index = StringIndex.build(list("abcde"))

    assert sorted(index.candidates("c").tolist()) == [0, 2, 4]
    assert index.candidates("b").tolist() == [1]
    assert index.candidates("d").tolist() == [3]
    found = index.find(list("?edcbae"), StringTable.build("abcde"))
    assert found.tolist() == [-1, 4, 3, 2, 1, 0, 4]


@given(texts=st.lists(TEXTS, unique=True), strangers=st.lists(TEXTS), data=st.data())
def test_many_strings_are_found_at_once(
    texts: list[str], strangers: list[str], data: st.DataObject
) -> None:
    asked = data.draw(st.permutations([*texts, *strangers]))

    found = StringIndex.build(texts).find(asked, StringTable.build(texts))

    expected = {text: number for number, text in enumerate(texts)}
    assert found.tolist() == [expected.get(text, -1) for text in asked]


@given(texts=st.lists(TEXTS, min_size=1), others=st.lists(TEXTS))
def test_a_table_holds_the_strings_that_it_returns(texts: list[str], others: list[str]) -> None:
    table = StringTable.build(texts)
    asked = [*texts, *others]
    numbers = np.arange(len(asked)) % len(texts)

    same = table.holds(numbers, [text.encode() for text in asked])

    pairs = zip(numbers.tolist(), asked, strict=True)
    assert same.tolist() == [table[number] == text for number, text in pairs]


def test_the_hash_never_changes() -> None:
    # Bundles on disk hold these numbers.
    hashes = string_hashes([text.encode() for text in ("", "B00004YWK2", "日本")])

    assert hashes.tolist() == [13020603013274838756, 9388386669743622125, 4223062404410717160]


def test_half_a_surrogate_pair_is_a_string_that_no_index_holds() -> None:
    index = StringIndex.build(["a", "\ufffd", "?"])

    assert index.candidates("\ud800").tolist() == []
