"""Conditions on typed attributes, as a request's JSON spells them.

A value is one of text, whole number, number or truth: equal to it. A list of values: any of them.
An object with `min` and `max`: between them, both included.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.attributes import AnyOf, Condition, Range, Scalar

FILTERS_MAX = 16
FILTER_VALUES_MAX = 100
_TEXT_MAX = 256
_LARGEST = 2**63 - 1


def _scalar(value: Any) -> Scalar:
    """Return a value that an attribute can have.

    Raises:
        PydanticCustomError: it is something else.
    """
    if isinstance(value, bool) or (isinstance(value, str) and _is_text(value)):
        return value
    if isinstance(value, int | float) and abs(value) <= _LARGEST and math.isfinite(value):
        return value
    raise PydanticCustomError(
        "filter_value",
        "give a text of 1 to {longest} characters, a finite number or a truth, a list of them, "
        "or an object with min and max",
        {"longest": _TEXT_MAX},
    )


def _is_text(value: str) -> bool:
    """Whether it is of a length that is taken, and has no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return 1 <= len(value) <= _TEXT_MAX


_SCALAR_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": _TEXT_MAX},
        {"type": "number", "minimum": -(2**53), "maximum": 2**53},
        {"type": "boolean"},
    ]
}
ScalarValue = Annotated[Scalar, PlainValidator(_scalar), WithJsonSchema(_SCALAR_SCHEMA)]
Bound = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class RangeBody(BaseModel):
    """Between two numbers, both included; at least one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"minProperties": 1})

    min: Bound | None = Field(default=None, description="Smallest value that passes.")
    max: Bound | None = Field(default=None, description="Largest value that passes.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> "RangeBody":
        if not self.model_fields_set:
            raise PydanticCustomError("empty_range", "give min, max or both")
        return self


def _variant(value: Any) -> str:
    """Return the tag of a condition; the parentheses keep it out of error pointers."""
    if isinstance(value, list):
        return "(any of)"
    return "(range)" if isinstance(value, dict | RangeBody) else "(value)"


ConditionBody = Annotated[
    Annotated[ScalarValue, Tag("(value)")]
    | Annotated[
        list[ScalarValue], Field(min_length=1, max_length=FILTER_VALUES_MAX), Tag("(any of)")
    ]
    | Annotated[RangeBody, Tag("(range)")],
    Discriminator(_variant),
]
AttributeName = Annotated[str, StringConstraints(min_length=1, max_length=_TEXT_MAX)]
FiltersBody = Annotated[
    dict[AttributeName, ConditionBody],
    Field(
        max_length=FILTERS_MAX,
        description="Conditions on the attributes that /v1/info lists: a value, a list of values "
        "of which any passes, or an object with min and max (both included). An item must pass "
        "all; one without a value passes none.",
    ),
]


def conditions(filters: Mapping[str, Any]) -> dict[str, Condition]:
    """Return the valid conditions of a request as the search takes them."""
    return {name: _condition(body) for name, body in filters.items()}


def _condition(body: Any) -> Condition:
    if isinstance(body, RangeBody):
        return Range(body.min, body.max)
    return AnyOf(tuple(body)) if isinstance(body, list) else AnyOf((body,))


def filter_pointer(attribute: str) -> str:
    """Return the JSON Pointer of an attribute's condition."""
    return "#/filters/" + attribute.replace("~", "~0").replace("/", "~1")
