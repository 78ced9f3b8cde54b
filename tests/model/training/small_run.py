"""A synthetic shop of a hundred items through the stages before training, in about a second."""

from dataclasses import dataclass
from pathlib import Path

from model.training.config import read_preset
from model.training.embedding.embed import embed
from model.training.preparation.prepare import PrepareConfig, prepare
from model.training.synthesis.synthesize import SynthesizeConfig, synthesize
from model.training.tokenizers.tokenize import tokenize
from model.training.train import TrainConfig
from model.training.training_set import TrainingSet, read_training_set

SMALL = TrainConfig(
    width=8,
    blocks=1,
    heads=2,
    history_length=6,
    text_components=8,
    dropout=0.1,
    batch_size=32,
    learning_rate=0.01,
    epochs=4,
    patience=4,
    validation_users=50,
    beam_width=10,
    device="cpu",
)


class Interruption(BaseException):
    """Stands for Ctrl-C and the like."""


@dataclass(frozen=True)
class Folders:
    """The stages before training."""

    prepared: Path
    embedded: Path
    tokenized: Path

    def all(self) -> tuple[Path, Path, Path]:
        return self.prepared, self.embedded, self.tokenized

    def data(self, *, history_length: int = 6, refit: bool = False) -> TrainingSet:
        return read_training_set(*self.all(), history_length=history_length, refit=refit)


def make_run(folder: Path) -> Folders:
    """Synthesize, prepare, embed and tokenize in `folder`."""
    synthesize(SynthesizeConfig(items=100, users=80, seed=1), folder / "synthetic")
    files = {name: [folder / "synthetic" / f"{name}.parquet"] for name in ("items", "events")}
    folders = Folders(folder / "prepared", folder / "embedded", folder / "tokenized")
    prepare(PrepareConfig.model_validate(files), folders.prepared)
    return derive(folders)


def derive(folders: Folders) -> Folders:
    """Embed and tokenize what is prepared."""
    preset = read_preset("tiny")
    embed(preset.embed, folders.prepared, folders.embedded)
    tokenize(preset.tokenize, *folders.all())
    return folders
