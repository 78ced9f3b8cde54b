import pytest

from service.errors import RolloutConflictError
from service.rollout import BundleReference, Role, Rollout, is_in_canary

ONE, TWO, THREE = (BundleReference(name=name, bundle=name * 8) for name in ("one", "two", "three"))
START = Rollout(active=ONE)
USERS = [f"user-{number}" for number in range(20_000)]


def members(percent: float, canary: BundleReference = TWO) -> set[str]:
    return {user for user in USERS if is_in_canary(user, canary, percent)}


@pytest.mark.parametrize("percent", [0.5, 5, 30, 99])
def test_a_canary_has_its_share_of_the_users(percent: float) -> None:
    share = len(members(percent)) / len(USERS) * 100
    deviation = (percent * (100 - percent) / len(USERS)) ** 0.5
    assert abs(share - percent) < 4 * deviation


def test_none_and_all_are_exact() -> None:
    assert members(0) == set()
    assert members(100) == set(USERS)


def test_a_larger_canary_keeps_its_users() -> None:
    assert members(1) < members(5) < members(50)


def test_each_canary_has_users_of_its_own() -> None:
    both = len(members(50, TWO) & members(50, THREE)) / len(USERS)
    assert 0.23 < both < 0.27


def test_the_choice_never_changes() -> None:
    chosen = [user for user in USERS[:40] if is_in_canary(user, TWO, 10)]
    assert chosen == ["user-3"]


def test_activation_keeps_the_former_bundle_for_a_rollback() -> None:
    rollout = START.with_role(TWO, "active", 5)
    assert (rollout.active, rollout.previous, rollout.version) == (TWO, ONE, 1)
    back = rollout.rolled_back(TWO)
    assert back is not None
    assert (back.active, back.previous, back.loaded, back.version) == (ONE, None, TWO, 2)
    assert back.rolled_back(ONE) is None


def test_a_canary_that_is_activated_is_none_any_more() -> None:
    rollout = START.with_role(TWO, "canary", 20)
    assert (rollout.active, rollout.canary, rollout.canary_percent) == (ONE, TWO, 20)
    rollout = rollout.with_role(TWO, "active", 5)
    assert (rollout.active, rollout.canary, rollout.canary_percent) == (TWO, None, 0)


def test_a_bundle_has_one_minor_role() -> None:
    rollout = START.with_loaded(TWO).with_role(TWO, "shadow", 5)
    assert (rollout.loaded, rollout.shadow) == (None, TWO)
    rollout = rollout.with_role(TWO, "canary", 5)
    assert (rollout.shadow, rollout.canary) == (None, TWO)
    assert rollout.with_loaded(TWO).loaded is None


def test_a_bundle_that_is_loaded_again_stays_loaded() -> None:
    once = START.with_loaded(TWO)
    assert once.with_loaded(TWO) == once.model_copy(update={"version": once.version + 1})


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_a_minor_role_is_rolled_back_alone(role: str) -> None:
    rollout = START.with_role(TWO, "active", 5)
    minor = rollout.with_role(THREE, role, 5)  # type: ignore[arg-type]
    back = minor.rolled_back(THREE)
    assert back is not None
    assert back == rollout.model_copy(update={"version": minor.version + 1})


def test_what_has_no_role_cannot_be_rolled_back() -> None:
    assert START.rolled_back(TWO) is None
    assert START.rolled_back(ONE) is None


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_the_active_bundle_gets_no_minor_role(role: Role) -> None:
    rollout = START.with_role(TWO, "active", 5)
    with pytest.raises(RolloutConflictError, match="is active: activate another one first"):
        rollout.with_role(TWO, role, 5)


@pytest.mark.parametrize("role", ["active", "canary", "shadow"])
def test_loading_what_has_a_role_leaves_the_loaded_bundle_alone(role: Role) -> None:
    rollout = START.with_role(TWO, role, 5).with_loaded(THREE)
    again = rollout.with_loaded(TWO)
    assert again == rollout.model_copy(update={"version": rollout.version + 1})


def test_of_two_bundles_of_one_name_that_with_the_greater_role_is_meant() -> None:
    # A set of references has an order of its hashes: twenty of them are never right by luck.
    for number in range(20):
        newer = BundleReference(name="two", bundle=f"newer-{number}")
        rollout = START.with_role(TWO, "active", 5).with_loaded(newer)
        assert rollout.named("two") == TWO
        replaced = rollout.with_role(newer, "active", 5)
        assert (replaced.previous, replaced.named("two")) == (TWO, newer)
    assert START.named("two") is None
