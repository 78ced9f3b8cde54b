"""Scenarios: what a shop's pages ask for again and again, under a name.

A TOML file has one table for each. Most of its entries are fields of a recommendation, with the
same meaning and the same limits; a request that gives such a field itself wins. `pins` and `boosts`
are the shop's own word on items:

    [home]
    k = 12
    diversity = 0.3
    filters = { market = "DE", price = { max = 50 } }
    pins = [{ position = 1, item_id = "P0148" }]
    boosts = [
        { shift = 0.7, filters = { brand = "OPI" } },
        { shift = -2.0, categories = [["Makeup", "Testers"]] },
    ]
"""

import tomllib
from collections.abc import Mapping
from typing import Annotated, Final, Self, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from model.boosts import Boost
from model.query import Query
from service.errors import InvalidFieldError, SettingsError
from service.filters import FiltersBody, conditions
from service.schemas import (
    CATEGORIES_MAX,
    EXCLUDE_MAX,
    K_MAX,
    CategoryPath,
    Identifier,
    RecommendRequest,
    RequestBody,
    ScenarioName,
)

SCENARIOS_MAX: Final = 100
PINS_MAX: Final = 20
BOOSTS_MAX: Final = 20
SHIFT_MAX: Final = 20.0
_OF_A_REQUEST: Final = frozenset({"user_id", "history", "after", "anchor", "context", "scenario"})
"""Fields that no scenario can know beforehand."""
_ORDERS: Final = frozenset({"diversity", "exploration"})


class Pin(RequestBody):
    """An item that is put at a position where it may be answered."""

    position: int = Field(ge=1, le=K_MAX, strict=True)
    item_id: Identifier


class BoostBody(RequestBody):
    """A shift of the score of the items that fulfil all of its conditions."""

    shift: float = Field(ge=-SHIFT_MAX, le=SHIFT_MAX, allow_inf_nan=False, strict=True)
    items: list[Identifier] = Field(default=[], max_length=EXCLUDE_MAX)
    categories: list[CategoryPath] = Field(default=[], max_length=CATEGORIES_MAX)
    filters: FiltersBody = Field(default={})

    @model_validator(mode="after")
    def _names_items(self) -> Self:
        if not (self.items or self.categories or self.filters):
            raise ValueError("name what is boosted, by items, categories or filters")
        return self

    def boost(self) -> Boost:
        """Return it as the recommender takes it."""
        return Boost(
            shift=self.shift,
            items=tuple(self.items),
            categories=tuple(tuple(path) for path in self.categories),
            filters=tuple(sorted(conditions(self.filters).items())),
        )


class Scenario(RecommendRequest):
    """Presets of a recommendation's fields, pinned items and boosts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pins: list[Pin] = Field(default=[], max_length=PINS_MAX)
    boosts: list[BoostBody] = Field(default=[], max_length=BOOSTS_MAX)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if personal := sorted(self.model_fields_set & _OF_A_REQUEST):
            raise ValueError(f"{personal[0]} is for a request to say: remove it")
        for what, values in (
            ("position", [str(pin.position) for pin in self.pins]),
            ("item_id", [pin.item_id for pin in self.pins]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two pins have the {what} {twice[0]}: move or remove one")
        return self

    def preset(self, body: RecommendRequest) -> RecommendRequest:
        """Return the request with the presets in the fields that it does not give itself."""
        given = body.model_fields_set
        own = set(RecommendRequest.model_fields) & self.model_fields_set - given
        if given & _ORDERS:  # one order excludes the other
            own -= _ORDERS
        return body.model_copy(update={name: getattr(self, name) for name in own})

    @property
    def pinned(self) -> dict[int, str]:
        """Item ids by position."""
        return {pin.position: pin.item_id for pin in self.pins}

    @property
    def boosted(self) -> tuple[Boost, ...]:
        """The boosts as the recommender takes them."""
        return tuple(each.boost() for each in self.boosts)


Scenarios: TypeAlias = Mapping[str, Scenario]
_SCENARIOS: TypeAdapter[dict[str, Scenario]] = TypeAdapter(
    Annotated[dict[ScenarioName, Scenario], Field(min_length=1, max_length=SCENARIOS_MAX)]
)


def parse_scenarios(text: str, source: str) -> Scenarios:
    """Return what the text of the scenarios file `source` says.

    Raises:
        SettingsError: it cannot be used; the message names scenario, field, value and remedy.
    """
    try:
        return _SCENARIOS.validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"COFINE_SCENARIOS: {source} is not TOML: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        # Parts in parentheses name a variant of the schema, not a field.
        parts = [str(part) for part in found["loc"] if not str(part).startswith("(")]
        reason = str(found["msg"]).removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            reason = "no scenario has such a field; see service/scenarios.py for those there are"
        value = f" (got {found['input']!r})" if not isinstance(found["input"], dict) else ""
        place = ".".join(parts) or "the file"
        raise SettingsError(f"COFINE_SCENARIOS: {source}: {place}: {reason}{value}") from None


def scenario_of(scenarios: Scenarios, body: RecommendRequest) -> Scenario:
    """Return the scenario that a request names; one without presets where it names none.

    Raises:
        InvalidFieldError: there is none of this name.
    """
    if body.scenario is None:
        return Scenario()
    if body.scenario not in scenarios:
        known = ", ".join(sorted(scenarios)) or "none; COFINE_SCENARIOS names their file"
        detail = f"there is no such scenario; there are {known}"
        raise InvalidFieldError(detail, pointer="#/scenario")
    return scenarios[body.scenario]


def blamed(error: InvalidFieldError, body: RecommendRequest) -> InvalidFieldError:
    """Return the error with a pointer to the scenario where the request gives no such field."""
    field = (error.pointer or "#").removeprefix("#/").partition("/")[0]
    if body.scenario is None or field in body.model_fields_set:
        return error
    detail = f"the scenario does not suit the bundle in service: {field}: {error.detail}"
    return InvalidFieldError(detail, pointer="#/scenario")


def probe(scenario: Scenario) -> Query:
    """Return a query that uses everything of a scenario that a bundle may be unable to do."""
    return Query(
        k=1,
        categories=scenario.categories,
        filters=conditions(scenario.filters),
        path=tuple(scenario.path),
        boosts=scenario.boosted,
        explain=scenario.explain,
    )
