"""A newcomer's tour: what the console shows is what the service says."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.visit import become, give_taste, operator, settle, shown
from tests.end_to_end.service_process import ServiceProcess, ids, recommend, stored

K = 12


def test_a_newcomer_sees_what_is_popular_and_then_their_own_list(
    service: ServiceProcess, open_page: OpenPage
) -> None:
    page = open_page(service.url)
    expect(page.get_by_role("heading", name="Popular now")).to_be_visible()
    name = page.locator(".visitor h1").inner_text()
    become(page, "newcomer")
    assert name != "newcomer"
    popular = shown(page)
    with service.client() as client:
        assert popular == ids(recommend(client, user_id="newcomer", k=K))
        give_taste(page)
        expect(page.get_by_role("heading", name="For newcomer")).to_be_visible()
        assert shown(page) == ids(recommend(client, user_id="newcomer", k=K)) != popular
        assert len(stored(client, "newcomer")) == 3


def test_every_event_changes_the_list(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url)
    become(page, "buyer")
    give_taste(page)
    with service.client() as client:
        for number, kind in enumerate(("View", "Cart", "Buy"), start=4):
            first = shown(page)[0]
            page.locator(".card").first.get_by_role("button", name=f"{kind}:").click()
            expect(page.locator(".events li")).to_have_count(number)
            expect(page.locator(f'.card[data-item="{first}"]')).to_have_count(0)
            assert stored(client, "buyer")[-1] == first
        settle(page)
        unloved = shown(page)[0]
        page.locator(".card").first.get_by_role("button", name="Dislike:").click()
        expect(page.locator(".events li[data-type=dislike]")).to_have_count(1)
        expect(page.locator(f'.card[data-item="{unloved}"]')).to_have_count(0)
        user = client.get("/v1/users/buyer").json()
        assert user["disliked"] == [unloved]
        types = [entry["type"] for entry in user["history"]]
        assert types == ["view", "view", "view", "view", "cart", "purchase"]
        page.get_by_role("button", name="Forget all").click()
        expect(page.get_by_text("Nothing yet")).to_be_visible()
        assert stored(client, "buyer") == []


def test_from_broad_to_narrow(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url)
    become(page, "explorer")
    give_taste(page)
    with service.client() as client:
        body = {"user_id": "explorer", "k": 0}
        choices = client.post("/v1/explore", json=body).json()["choices"]
        bars = page.locator(".choice")
        assert bars.locator(".name").all_inner_texts() == [each["name"] for each in choices][:8]
        path = choices[0]["path"]
        bars.first.click()
        expect(page.locator(".crumbs [aria-current]")).to_have_text(path[-1])
        expect(page.get_by_role("heading", name=f"For explorer in {path[-1]}")).to_be_visible()
        settle(page)
        assert shown(page) == ids(recommend(client, user_id="explorer", k=K, path=path))
    page.get_by_role("button", name="Everything").click()
    expect(page.get_by_role("heading", name="For explorer", exact=True)).to_be_visible()


def test_why_an_item_is_there(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url)
    become(page, "doubter")
    give_taste(page)
    page.locator(".cover").first.click()
    box = page.get_by_role("dialog")
    expect(box.get_by_text("The way from broad to narrow")).to_be_visible()
    with service.client() as client:
        answer = recommend(client, user_id="doubter", k=1, explain=True)["items"][0]
    names = [step["name"] for step in answer["explanation"]["way"]]
    assert box.locator(".way").first.locator("li > span").all_inner_texts() == names
    expect(box.locator(".way").nth(1).locator("li")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)


def test_the_next_page_repeats_nothing(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url)
    become(page, "reader")
    first = shown(page)
    page.get_by_role("button", name="More like these").click()
    expect(page.get_by_role("heading", name="The next ones")).to_be_visible()
    assert not {*shown(page)} & {*first}


def test_the_operator_sees_figures_codes_and_the_tree(
    service: ServiceProcess, open_page: OpenPage
) -> None:
    page = open_page(service.url)
    become(page, "watched")
    give_taste(page)
    item = shown(page)[0]
    operator(page)
    expect(page.locator(".figures dd b").first).to_contain_text(" ms")
    look_up(page, item)
    with service.client() as client:
        found = client.get(f"/v1/items/{item}", params={"neighbours": 8}).json()
        codes = page.locator(".levels b").all_inner_texts()
        assert codes == [str(code) for code in found["semantic_id"]]
        titles = page.locator(".near .title").all_inner_texts()
        assert titles == [each["title"] or each["item_id"] for each in found["neighbours"]]
        top = client.get("/v1/taxonomy").json()["choices"]
        labels = [f"{each['name']}, {each['items']} items" for each in top]
        for label in labels:
            expect(page.get_by_role("button", name=label, exact=True)).to_be_visible()
    page.get_by_role("button", name=labels[0], exact=True).click()
    expect(page.locator(".tree .crumbs [aria-current]")).to_have_text(top[0]["name"])
    look_up(page, "no-such-item")
    expect(page.get_by_text("No such item")).to_be_visible()


def test_two_ways_of_searching_side_by_side(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url)
    become(page, "compared")
    give_taste(page)
    operator(page)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".column")).to_have_count(2)
    with service.client() as client:
        left = recommend(client, user_id="compared", k=10)
        right = recommend(client, user_id="compared", k=10, diversity=0.7)
    shared = len({*ids(left)} & {*ids(right)})
    expect(page.locator(".verdict b")).to_have_text(f"{shared} of 10")
    for column, answer in ((0, left), (1, right)):
        titles = page.locator(".column").nth(column).locator(".title").all_inner_texts()
        assert titles == [item["title"] or item["item_id"] for item in answer["items"]]


def look_up(page: Page, item: str) -> None:
    page.get_by_label("Item id").fill(item)
    page.get_by_role("button", name="Look up").click()
    expect(page.locator(".lookup [aria-busy]")).to_have_count(0)
