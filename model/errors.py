"""What the model package can refuse.

ModelError
    ConfigError               a setting is missing, unknown or out of range
    DataError                 the catalogue or the events cannot be used as given
    StageError                a stage's input folder is missing, unfinished or of other data
    TrainingError             training cannot go on (non-finite loss, foreign checkpoint)
    ExportError               a bundle cannot be written, or computes something else than PyTorch
    PublishError              a bundle ranks worse than publishing allows, or cannot be put there
    BundleError               the bundle is missing, damaged, incomplete or of another format
    UnknownItemError          an item id that the catalogue does not hold
    UnknownCategoryError      a category path that no item of the catalogue has
    UnknownPlaceError         a path of the browsed tree that leads nowhere
    FilterError               a filter on an attribute that is not there, or of another type

Catch `ModelError` to turn any of them into one line for a person. Messages name the file or the
field, the value and the remedy; nothing here knows about HTTP.
"""

from collections.abc import Sequence


class ModelError(Exception):
    """Base of everything the model package refuses."""


class ConfigError(ModelError):
    """A setting is missing, unknown or out of range."""


class DataError(ModelError):
    """The catalogue or the events cannot be used as given."""


class StageError(ModelError):
    """A stage's input folder is missing, unfinished or belongs to other data."""


class TrainingError(ModelError):
    """Training cannot go on."""


class ExportError(ModelError):
    """A bundle cannot be written, or its graphs do not compute what PyTorch computes."""


class PublishError(ModelError):
    """A bundle ranks worse than publishing allows, or cannot be put there."""


class BundleError(ModelError):
    """The bundle is missing, damaged, incomplete or of another format."""


class UnknownItemError(ModelError):
    """An item id that the catalogue does not hold."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"item_id {item_id!r} is not in the catalogue")
        self.item_id = item_id


class UnknownCategoryError(ModelError):
    """A category path that no item of the catalogue has."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(
            f"category path {list(path)!r} is not in the catalogue; "
            "give a list of names from coarse to fine, as in an item's path"
        )
        self.path = tuple(path)


class FilterError(ModelError):
    """A filter names an attribute that the bundle does not have, or does not suit its type."""

    def __init__(self, attribute: str, reason: str) -> None:
        super().__init__(f"attribute {attribute!r} {reason}")
        self.attribute = attribute


class BoostError(ModelError):
    """The boost at `place` names what the bundle does not have, or does not suit its type."""

    def __init__(self, place: int, error: UnknownCategoryError | FilterError) -> None:
        super().__init__(str(error))
        self.place = place


class UnknownPlaceError(ModelError):
    """A path of the browsed tree leads nowhere; `depth` is the place of its first unknown name."""

    def __init__(self, path: Sequence[str], depth: int) -> None:
        above = " > ".join(path[:depth]) or "the root"
        super().__init__(f"there is no {path[depth]!r} below {above}; take a name from its choices")
        self.path = tuple(path)
        self.depth = depth


class NoLevelsError(ModelError):
    """Probabilities by level were asked of a decoder that writes codes in no fixed order."""

    def __init__(self) -> None:
        super().__init__(
            "this bundle's decoder fills in codes in any order and has no probability per level: "
            "ask without explanations and choices, or serve an autoregressive bundle"
        )
