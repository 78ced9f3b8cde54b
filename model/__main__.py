"""The command `cofine` (also `python -m model`): the offline half, stage by stage or in one run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from model.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from model.training.export import Stages

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
except ModuleNotFoundError as missing:  # the serving image has neither
    sys.exit(f"cofine needs {missing.name}: install the package with its [train] extra")

app = typer.Typer(
    help="Cofine, offline: from a catalogue and events to a bundle that the service answers from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

Folder = Annotated[Path, typer.Argument(help="Workspace folder with the stages' results.")]
BundleFolder = Annotated[Path, typer.Argument(help="Bundle folder.")]
PresetOption = Annotated[str, typer.Option(help="tiny, demo or base.")]


@app.command()
def prepare(  # noqa: PLR0913, PLR0917 - one parameter per option
    workspace: Folder,
    items: Annotated[list[Path], typer.Option(help="Catalogue: Parquet, CSV or JSON Lines.")],
    events: Annotated[list[Path], typer.Option(help="Parquet, CSV, JSON Lines; or event logs.")],
    split: Annotated[str, typer.Option(help="leave_one_out or time.")] = "leave_one_out",
    item_column: Annotated[
        list[str] | None, typer.Option(help="Renames as OURS=THEIRS, once per column.")
    ] = None,
    event_column: Annotated[
        list[str] | None, typer.Option(help="Renames as OURS=THEIRS, once per column.")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(help="Typed attribute to keep as NAME=TYPE: str, int, float or bool."),
    ] = None,
    embedding: Annotated[
        list[str] | None, typer.Option(help="Column of embeddings to keep, once per column.")
    ] = None,
    validation_from: Annotated[
        str | None, typer.Option(help="Split by time: a timestamp as in the events, or a date.")
    ] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Split by time: where the test begins.")
    ] = None,
    min_history: Annotated[
        int, typer.Option(help="Training events of a user whose later ones are held out.")
    ] = 1,
) -> None:
    """Check, count and split a catalogue and its events."""
    from model.training.config import validated
    from model.training.preparation.prepare import PrepareConfig, report_table
    from model.training.preparation.prepare import prepare as run_prepare

    settings = {
        "items": items,
        "events": events,
        "split": split,
        "item_columns": _pairs(item_column, "a column is renamed as OURS=THEIRS, as in title=name"),
        "event_columns": _pairs(
            event_column, "a column is renamed as OURS=THEIRS, as in type=kind"
        ),
        "attributes": _pairs(attribute, "an attribute is given as NAME=TYPE, as in price=float"),
        "embeddings": embedding or (),
        "validation_from": validation_from,
        "test_from": test_from,
        "min_history": min_history,
    }
    config = validated(PrepareConfig, settings, "cofine prepare")
    console.print(report_table(run_prepare(config, _stages(workspace, redo="prepare").prepared)))


@app.command()
def synthesize(
    output: Annotated[Path, typer.Argument(help="Folder for the files.")],
    items: Annotated[int, typer.Option(help="100 to 1,000,000.")] = 1000,
    users: Annotated[int, typer.Option(help="Users with a history each.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same shop.")] = 0,
) -> None:
    """Make a synthetic web shop with a known best answer."""
    from model.training.config import validated
    from model.training.synthesis.synthesize import SynthesizeConfig
    from model.training.synthesis.synthesize import synthesize as run_synthesize

    settings = {"items": items, "users": users, "seed": seed}
    config = validated(SynthesizeConfig, settings, "cofine synthesize")
    console.print_json(run_synthesize(config, output).model_dump_json())


@app.command()
def embed(workspace: Folder, preset: PresetOption = "base") -> None:
    """Embed the items' texts."""
    from model.training.config import read_preset
    from model.training.embedding.embed import embed as run_embed

    stages = _stages(workspace, redo="embed")
    run_embed(read_preset(preset).embed, stages.prepared, stages.embedded)


@app.command()
def tokenize(workspace: Folder, preset: PresetOption = "base") -> None:
    """Give every item its semantic ID."""
    from model.training.config import read_preset
    from model.training.tokenizers.tokenize import tokenize as run_tokenize

    stages = _stages(workspace, redo="tokenize")
    folders = (stages.prepared, stages.embedded, stages.tokenized)
    run_tokenize(read_preset(preset).tokenize, *folders)


@app.command()
def train(
    workspace: Folder,
    preset: PresetOption = "base",
    refit: Annotated[
        bool, typer.Option(help="On all events, for as many epochs as validation chose.")
    ] = False,
) -> None:
    """Train encoder, generator and item head; continues an interrupted training."""
    from model.training.config import read_preset
    from model.training.train import refit as run_refit
    from model.training.train import train as run_train

    config = read_preset(preset).train
    stages = _stages(workspace, redo="refit" if refit else "train")
    folders = (stages.prepared, stages.embedded, stages.tokenized)
    if refit:
        run_refit(config, folders, stages.trained, _stages(workspace, refit=True).trained)
    else:
        run_train(config, *folders, stages.trained)


@app.command()
def export(
    workspace: Folder,
    bundle: BundleFolder,
    refit: Annotated[bool, typer.Option(help="The network trained on all events.")] = False,
    default_item: Annotated[
        list[str] | None, typer.Option(help="Item id to begin the default list with.")
    ] = None,
) -> None:
    """Export a checked bundle."""
    from model.training.config import validated
    from model.training.export import ExportConfig
    from model.training.export import export as run_export

    stages = _stages(workspace, refit=refit, redo="export-refit" if refit else "export")
    config = validated(ExportConfig, {"default_items": default_item or ()}, "cofine export")
    manifest = run_export(stages, bundle, config)
    console.print(f"bundle {manifest.bundle_id} in {bundle}")


@app.command()
def evaluate(
    bundle: BundleFolder,
    workspace: Annotated[
        Path | None, typer.Option(help="Workspace that holds the prepared events.")
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    users: Annotated[int | None, typer.Option(help="Measure a sample of users.")] = None,
    beam_width: Annotated[int | None, typer.Option(help="Instead of the bundle's own.")] = None,
    oracle: Annotated[Path | None, typer.Option(help="oracle.parquet of a synthetic shop.")] = None,
) -> None:
    """Measure a bundle through the code that serves it."""
    from model.training.config import validated
    from model.training.evaluation.evaluate import EvaluateConfig
    from model.training.evaluation.evaluate import evaluate as run_evaluate

    if workspace is None:
        raise ConfigError(
            "cofine evaluate needs --workspace, the folder that `cofine run` or `cofine prepare` "
            "filled: a bundle holds no events to be measured on"
        )
    settings = {"split": split, "users": users, "beam_width": beam_width, "oracle": oracle}
    config = validated(EvaluateConfig, settings, "cofine evaluate")
    run_evaluate(config, bundle, _stages(workspace, redo="evaluate").prepared)


@app.command()
def decoders(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of one catalogue.")],
    workspace: Annotated[Path, typer.Option(help="Workspace with the prepared events.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    users: Annotated[int | None, typer.Option(help="Measure a sample of users.")] = None,
    beam_width: Annotated[int, typer.Option(help="Of every search.")] = 50,
    output: Annotated[
        Path | None,
        typer.Option(help="Markdown file of a report; what is measured there already is kept."),
    ] = None,
) -> None:
    """Compare ways of decoding: accuracy, diversity and latency at equal beams."""
    from model.training.config import validated
    from model.training.evaluation.decoding import DecodingConfig, compare_decoding

    settings = {"split": split, "users": users, "beam_width": beam_width}
    config = validated(DecodingConfig, settings, "cofine decoders")
    compare_decoding(config, bundles, _stages(workspace).prepared, output)


@app.command()
def publish(
    candidate: Annotated[Path, typer.Argument(help="Bundle to publish.")],
    shelf: Annotated[Path, typer.Argument(help="Folder of published bundles.")],
    workspace: Annotated[Path, typer.Option(help="Workspace with the prepared events.")],
    least_ndcg: Annotated[float, typer.Option(help="NDCG@10 that it must reach.")] = 0.0,
    largest_loss: Annotated[
        float, typer.Option(help="Share of the current bundle's NDCG@10 to give up.")
    ] = 0.02,
    users: Annotated[int, typer.Option(help="Validation users to rank, at most.")] = 10_000,
) -> None:
    """Put a bundle where services take it from, unless it recommends worse than the one there."""
    from model.training.config import validated
    from model.training.publish import PublishConfig
    from model.training.publish import publish as run_publish

    settings = {"least_ndcg": least_ndcg, "largest_loss": largest_loss, "users": users}
    config = validated(PublishConfig, settings, "cofine publish")
    done = run_publish(config, candidate, shelf, _stages(workspace).prepared)
    console.print_json(done.model_dump_json())


@app.command()
def inspect(
    bundle: BundleFolder,
    item: Annotated[
        str | None, typer.Argument(help="An item id: its codes and neighbours.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file to draw the category tree into.")
    ] = None,
) -> None:
    """Show what is in a bundle, or all about one item."""
    from model.bundle import Bundle
    from model.training.evaluation.category_picture import plot_categories
    from model.training.inspection import InspectConfig, inspect_bundle, inspect_item

    opened = Bundle.open(bundle)
    if picture is not None:
        plot_categories(opened, picture)
    if item is None:
        inspect_bundle(InspectConfig(), opened, console)
    else:
        inspect_item(InspectConfig(), opened, item, console)


@app.command()
def example(bundle: BundleFolder) -> None:
    """Show one recommendation, and the HTTP call that gives the same."""
    from model.bundle import Bundle
    from model.training.example import show_example

    show_example(Bundle.open(bundle), console)


@app.command()
def recommend(
    bundle: BundleFolder,
    users: Annotated[Path, typer.Argument(help="user_id and history, or a prepared folder.")],
    output: Annotated[Path, typer.Argument(help="Parquet file for the lists.")],
    k: Annotated[int, typer.Option(help="Items per list.")] = 10,
) -> None:
    """Make lists for many users at once."""
    from model.bundle import Bundle
    from model.training.bulk import BulkConfig, recommend_users
    from model.training.config import validated

    config = validated(BulkConfig, {"k": k}, "cofine recommend")
    report = recommend_users(config, Bundle.open(bundle), users, output)
    console.print_json(report.model_dump_json())


@app.command()
def run(config: Annotated[Path, typer.Argument(help="TOML file of the run.")]) -> None:
    """Run all stages from one TOML file; what is up to date is skipped."""
    from model.training.config import read_run_config
    from model.training.pipeline import run_pipeline

    run_pipeline(read_run_config(config), console)


@app.command(name="evaluate-cold")
def evaluate_cold(
    bundle: BundleFolder,
    workspace: Annotated[Path, typer.Option(help="Workspace whose [prepare] holds items out.")],
    users: Annotated[int | None, typer.Option(help="Measure a sample of users.")] = None,
) -> None:
    """Insert the items that were held out, and measure how well they are found."""
    from model.training.evaluation.cold import evaluate_cold as run_evaluate_cold

    run_evaluate_cold(bundle, _stages(workspace).prepared, users=users)


@app.command()
def compare(
    config: Annotated[Path, typer.Argument(help="TOML file with data sets and methods.")],
) -> None:
    """Compare tokenizers on data sets; what is up to date is skipped."""
    from model.training.compare import compare as run_compare

    run_compare(config, console)


def main() -> None:
    """Run the command; what it refuses is one line and exit status 2."""
    try:
        app()
    except (ModelError, OSError) as error:
        line = " ".join(str(error).split())
        # Messages may hold brackets, as in [prepare], which are no markup.
        errors.print(f"[red]error:[/red] {escape(line)}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _stages(workspace: Path, *, refit: bool = False, redo: str | None = None) -> "Stages":
    """The stages' folders; `redo` is made by hand, so `cofine run` must look at it again."""
    from model.training.pipeline import Workspace

    found = Workspace(workspace)
    if redo is not None:
        found.reopen(redo)
    return found.stages(refit=refit)


def _pairs(pairs: list[str] | None, form: str) -> dict[str, str]:
    """`["title=name"]` -> `{"title": "name"}`; `form` tells what a pair has to look like."""
    for pair in pairs or ():
        if "=" not in pair:
            raise ConfigError(f"{form}; got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs or ())


if __name__ == "__main__":
    main()
