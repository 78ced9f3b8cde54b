"""Put a new bundle where services take it from, unless it recommends worse than the one there.

A *shelf* is a folder with one folder per bundle id and `current`, a relative link to one of them:

    bundles/0f3c.../   bundles/9a41.../   bundles/current -> 9a41...

Both bundles rank the same held-out users through the code that serves them; numbers from two
trainings would compare two data sets. Nobody sees half a bundle: it is copied beside its place,
verified there and renamed, and only then does the link move, in one rename.
"""

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from model.bundle import Bundle
from model.errors import BundleError, PublishError
from model.golden_cases import verify_golden
from model.recommender import Recommender
from model.training.evaluation.evaluate import SERVED, EvaluateConfig, measure

CURRENT = "current"


class PublishConfig(BaseModel):
    """What a bundle must reach to be published."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least_ndcg: float = Field(default=0.0, ge=0, le=1, description="NDCG@10 of the served ranking")
    largest_loss: float = Field(
        default=0.02, ge=0, le=1, description="share of the current bundle's NDCG@10 to give up"
    )
    users: int = Field(default=10_000, ge=1, description="validation users, at most")


class Publication(BaseModel):
    """What was published, and what it was compared with."""

    bundle: str
    ndcg: float | None = Field(description="NDCG@10; None when it was current already")
    former: str | None = Field(description="id of the bundle that was current")
    former_ndcg: float | None


def publish(config: PublishConfig, candidate: Path, shelf: Path, prepared: Path) -> Publication:
    """Make `candidate` the current bundle of `shelf`; a bundle that is current already stays.

    Raises:
        BundleError: the candidate cannot be used.
        StageError: the prepared folder is unfinished or of another catalogue.
        PublishError: it ranks worse than the config allows; the shelf is as it was.
    """
    bundle = Bundle.open(candidate)
    former = current_bundle(shelf)
    if former is not None and former.bundle_id == bundle.bundle_id:
        return Publication(
            bundle=bundle.bundle_id, ndcg=None, former=bundle.bundle_id, former_ndcg=None
        )
    ndcg = _ndcg(config, bundle, prepared)
    former_ndcg = None if former is None else _ndcg(config, former, prepared)
    _refuse_worse(config, ndcg, former_ndcg)
    _put_on(shelf, candidate, bundle.bundle_id)
    return Publication(
        bundle=bundle.bundle_id,
        ndcg=ndcg,
        former=None if former is None else former.bundle_id,
        former_ndcg=former_ndcg,
    )


def current_bundle(shelf: Path) -> Bundle | None:
    """Open the bundle that services take.

    None on a new shelf, and when this release cannot use that bundle: then it is of another format
    or damaged, and must not stand in the way of one that works.

    Raises:
        PublishError: `current` is no link, so that it could not be moved in one step.
    """
    link = shelf / CURRENT
    if not link.is_symlink():
        if link.exists():
            raise PublishError(f"{link} is no link: move it away, or name another shelf")
        return None
    return Bundle.open(link) if _is_usable(link) else None


def _is_usable(place: Path) -> bool:
    try:
        Bundle.open(place)
    except BundleError:
        return False
    return True


def _ndcg(config: PublishConfig, bundle: Bundle, prepared: Path) -> float:
    task = EvaluateConfig(split="validation", users=config.users, exhaustive_users=0)
    return measure(task, bundle, prepared).row(SERVED).metrics["ndcg@10"]


def _refuse_worse(config: PublishConfig, ndcg: float, former: float | None) -> None:
    if ndcg < config.least_ndcg:
        message = f"NDCG@10 {ndcg:.4f} on validation is below least_ndcg {config.least_ndcg:.4f}"
        raise PublishError(f"{message}: not published; look at the data, or lower least_ndcg")
    if former is not None and ndcg < former * (1 - config.largest_loss):
        raise PublishError(
            f"NDCG@10 {ndcg:.4f} on validation, but {former:.4f} by the current bundle: not "
            f"published; a loss of {config.largest_loss:.1%} is allowed (largest_loss)"
        )


def _put_on(shelf: Path, candidate: Path, bundle_id: str) -> None:
    shelf.mkdir(parents=True, exist_ok=True)
    place = shelf / bundle_id
    if not _is_usable(place):
        copying = shelf / f".{bundle_id}.partial"
        shutil.rmtree(copying, ignore_errors=True)
        shutil.copytree(candidate, copying)
        verify_golden(Recommender(Bundle.open(copying)))
        shutil.rmtree(place, ignore_errors=True)
        copying.replace(place)
    link = shelf / f".{CURRENT}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(bundle_id)  # relative: the volume may be mounted elsewhere
    link.replace(shelf / CURRENT)
