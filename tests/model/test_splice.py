import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.splice import SMALL_BYTES, Splice, joined
from model.strings import StringTable


@st.composite
def splices(draw: st.DrawFn) -> Splice:
    count = draw(st.integers(0, 8))
    removed = sorted(draw(st.sets(st.integers(0, count - 1)))) if count else []
    places = sorted(draw(st.lists(st.integers(0, count), max_size=6)))
    return Splice(count, np.array(removed, np.int64), np.array(places, np.int64))


def expected(splice: Splice) -> list[str]:
    """Old rows are small letters, new ones capitals."""
    rows = []
    for row in range(splice.count + 1):
        rows += [chr(65 + new) for new, place in enumerate(splice.places) if place == row]
        rows += [chr(97 + row)] if row < splice.count and row not in splice.removed else []
    return rows


@given(splices())
@settings(deadline=None)
def test_rows_go_and_come_where_they_belong(splice: Splice) -> None:
    old = [chr(97 + row) for row in range(splice.count)]
    new = [chr(65 + row) for row in range(len(splice.places))]
    wanted = expected(splice)

    found = splice.rows(np.array(old, "U1"), np.array(new, "U1"))

    assert found.tolist() == wanted
    for row, letter in enumerate(old):
        moved = int(splice.moved[row])
        assert (moved == -1) if row in splice.removed else (wanted[moved] == letter)
    assert [wanted[row] for row in splice.added] == new


@given(splices())
@settings(deadline=None)
def test_lists_go_and_come_whole(splice: Splice) -> None:
    old = [chr(97 + row) * (row % 3) for row in range(splice.count)]
    new = [chr(65 + row) * (row % 4) for row in range(len(splice.places))]
    was, come = StringTable.build(old), StringTable.build(new)

    offsets, blob = splice.lists((was.offsets, was.blob), (come.offsets, come.blob))

    both = dict(zip("abcdefgh", old, strict=False)) | dict(zip("ABCDEF", new, strict=False))
    table = StringTable(blob, offsets)
    assert [table[row] for row in range(len(table))] == [both[row] for row in expected(splice)]


def test_what_two_threads_copy_is_what_one_does() -> None:
    rows = SMALL_BYTES // 16
    large = np.arange(2 * rows, dtype=np.int64).reshape(rows, 2)
    parts = [large[:3], -large[:2], large[3 : rows // 2], large[:0], large[rows // 2 :]]
    assert np.array_equal(joined(parts), np.concatenate(parts))
