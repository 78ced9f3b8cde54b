import pytest

from model.edits import ItemEdit, Offer, next_change


@pytest.mark.parametrize(
    ("offer", "open_at"),
    [
        (Offer(), {0, 5, 10, 15}),
        (Offer(stock=1), {0, 5, 10, 15}),
        (Offer(stock=0), set()),
        (Offer(available_from=5), {5, 10, 15}),
        (Offer(available_until=10), {0, 5}),
        (Offer(stock=3, available_from=5, available_until=10), {5}),
        (Offer(stock=0, available_from=5, available_until=10), set()),
    ],
)
def test_an_item_can_be_had_in_stock_and_in_its_time(offer: Offer, open_at: set[int]) -> None:
    assert {moment for moment in (0, 5, 10, 15) if offer.is_open(moment)} == open_at
    assert {m for m in (0, 5, 10, 15) if ItemEdit(offer=offer).allows(m)} == open_at
    assert not any(ItemEdit(offer=offer, is_hidden=True).allows(m) for m in (0, 5, 10, 15))


def test_the_next_change_is_the_first_beginning_or_end_to_come() -> None:
    edits = [
        ItemEdit(offer=Offer(available_from=5, available_until=20)),
        ItemEdit(offer=Offer(available_until=10)),
        ItemEdit(),
    ]

    moments = [next_change(edits, now) for now in (0, 5, 7, 10, 20)]

    assert moments == [5, 10, 10, 20, None]
