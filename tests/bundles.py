"""Real bundles for tests, trained once per session by the pipeline itself."""

from pathlib import Path

from rich.console import Console

from model.training.config import read_run_config
from model.training.pipeline import run_pipeline
from model.training.synthesis.synthesize import SynthesizeConfig, synthesize
from tests.research_data import research_data

SHOP = """
preset = "tiny"
workspace = "run"
bundle = "bundle"

[synthesize]
items = 300
users = 600
seed = 3

[train]
epochs = 3

[evaluate]
exhaustive_users = 50
"""


COLD_SHOP = """
preset = "tiny"
workspace = "run"
bundle = "bundle"

[prepare]
items = "shop/items.parquet"
events = "shop/events.parquet"
cold_items = 0.2

[train]
epochs = 3

[evaluate]
exhaustive_users = 0
users = 20
"""


def make_cold_bundle(folder: Path) -> Path:
    """Train on a shop of 200 items, 40 of which are held out of everything."""
    synthesize(SynthesizeConfig(items=200, users=300, seed=2), folder / "shop")
    return _make(folder, COLD_SHOP)


def make_cold_diffusion_bundle(folder: Path) -> Path:
    """The same held out of a shop whose bundle has a masked-diffusion decoder."""
    synthesize(SynthesizeConfig(items=200, users=300, seed=2), folder / "shop")
    return _make(folder, _with_diffusion(COLD_SHOP))


def make_shop_bundle(folder: Path) -> Path:
    """Train on a small synthetic shop in `folder`; the workspace stays in `folder/run`."""
    return _make(folder, SHOP)


def make_diffusion_bundle(folder: Path) -> Path:
    """The same shop with the category over two levels and a masked-diffusion decoder."""
    return _make(folder, _with_diffusion(SHOP))


def make_magazines_bundle(folder: Path) -> Path:
    """Train on the Magazines dataset in `folder`; skips where the data is absent."""
    return _make(folder, _magazines())


def make_magazines_diffusion_bundle(folder: Path) -> Path:
    """The same with a masked-diffusion decoder."""
    return _make(folder, _with_diffusion(_magazines()))


def _magazines() -> str:
    data = research_data("amazon-magazines-2018")
    source = f'[prepare]\nitems = "{data}/items.parquet"\nevents = "{data}/interactions.parquet"\n'
    settings = 'preset = "tiny"\nworkspace = "run"\nbundle = "bundle"\n'
    return f"{settings}{source}[train]\nepochs = 6\n"


def _with_diffusion(toml: str) -> str:
    """The same run with the category over two levels and a masked-diffusion decoder."""
    # Validation searches user by user: fifty are enough where only the bundle is wanted.
    train = '[train]\ndecoder = "diffusion"\nvalidation_users = 50\n'
    return toml.replace("[train]\n", train) + "\n[tokenize]\ncategory_levels = 2\n"


def _make(folder: Path, toml: str) -> Path:
    config = folder / "run.toml"
    config.write_text(toml, encoding="utf-8")
    run_pipeline(read_run_config(config), Console(quiet=True))
    return folder / "bundle"
