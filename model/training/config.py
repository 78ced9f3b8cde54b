"""One TOML file says everything about a run: a preset, where things lie, and what differs from it.

preset = "base"                 # tiny, demo or base
workspace = "runs/beauty"       # intermediate results; paths are relative to this file
bundle = "bundles/beauty"       # the result

[prepare]                       # or [synthesize]
items = "items.parquet"
events = "events.parquet"

[train]                         # any setting of a stage: embed, tokenize, train, export, evaluate
epochs = 20
"""

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from model.errors import ConfigError
from model.training.embedding.embed import EmbedConfig
from model.training.evaluation.evaluate import EvaluateConfig
from model.training.export import ExportConfig
from model.training.preparation.prepare import PrepareConfig
from model.training.synthesis.synthesize import SynthesizeConfig
from model.training.tokenizers.config import TokenizeConfig
from model.training.train import TrainConfig

PresetName = Literal["tiny", "demo", "base"]
Settings = TypeVar("Settings", bound=BaseModel)
STAGE_TABLES = ("embed", "tokenize", "train", "export", "evaluate")


class Preset(BaseModel):
    """Settings of the stages that are tuned together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embed: EmbedConfig = EmbedConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


class RunConfig(Preset):
    """A whole run, from files or a synthetic shop to an evaluated bundle."""

    workspace: Path
    bundle: Path
    synthesize: SynthesizeConfig | None = None
    prepare: PrepareConfig | None = None
    refit: bool = False
    """Train once more, on all events, into a second bundle `<bundle>-refit`."""

    @model_validator(mode="after")
    def _has_one_source(self) -> "RunConfig":
        if (self.synthesize is None) == (self.prepare is None):
            message = "give either [prepare] with items and events, or [synthesize]"
            raise ValueError(message)
        return self


def read_preset(name: str) -> Preset:
    """The settings of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    return validated(Preset, _preset_tables(name), f"preset {name!r}")


def read_run_config(path: Path) -> RunConfig:
    """Read a run's TOML file over its preset; relative paths are relative to the file.

    Raises:
        ConfigError: the file is missing, not TOML, or a setting is unknown or out of range.
    """
    return run_config(read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path} does not exist; give the TOML file of a run"
        raise ConfigError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        message = f"{path} is not TOML: {error}"
        raise ConfigError(message) from error


def run_config(given: Mapping[str, Any], path: Path) -> RunConfig:
    """Return the run that the content `given` of the TOML file `path` describes.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    tables = _preset_tables(str(given.get("preset", "base")))
    merged = {name: value for name, value in given.items() if name != "preset"} | {
        table: tables.get(table, {}) | _table(given, table, path) for table in STAGE_TABLES
    }
    return validated(RunConfig, _relative_to(merged, path.resolve().parent), str(path))


def _table(given: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = given.get(name, {})
    if not isinstance(table, dict):
        message = f"{path}: {name} must be a table, as in [{name}]; got {table!r}"
        raise ConfigError(message)
    return table


def _preset_tables(name: str) -> dict[str, dict[str, Any]]:
    if name not in get_args(PresetName):
        message = f"preset {name!r} does not exist; choose one of {', '.join(get_args(PresetName))}"
        raise ConfigError(message)
    text = resources.files("model.training.presets").joinpath(f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def _relative_to(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the settings that are paths against the folder of the TOML file."""

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(entry) for entry in value]
        return folder / value if isinstance(value, str) else value

    found = dict(tables)
    for name in ("workspace", "bundle"):
        if name in found:
            found[name] = resolved(found[name])
    paths_of = {
        "prepare": ("items", "events"),
        "tokenize": ("fitted",),
        "evaluate": ("oracle", "plot"),
    }
    for table, names in paths_of.items():
        if isinstance(found.get(table), dict):
            paths = {name: resolved(found[table][name]) for name in names if name in found[table]}
            found[table] = found[table] | paths
    return found


def validated(kind: type[Settings], tables: Mapping[str, Any], source: str) -> Settings:
    """Validate settings, turning the first complaint into a `ConfigError` that names it."""
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        # A complaint about a whole table says itself what it found there.
        whole = first["type"] in {"missing", "value_error"} and isinstance(first["input"], dict)
        value = "" if whole else f" (got {first['input']!r})"
        reason = first["msg"].removeprefix("Value error, ")
        message = ": ".join(filter(None, (source, where, reason))) + value
        raise ConfigError(message) from error
