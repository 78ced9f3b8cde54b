"""Mixed load for minutes, COFINE_TEST_SOAK_MINUTES (10): the memory must not grow."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.contract.redis_server import running_redis
from tests.end_to_end.service_process import ServiceProcess, recommend, running_service
from tests.faults.conftest import results_folder
from tests.faults.load import MixedTraffic, OpenLoop, Request, steady_load
from tests.faults.process_faults import PATIENT

RATE = 40.0
SAMPLE_SECONDS = 2.0
GROWTH_MAX_MIB = 4.0
"""What the fitted line may rise over the second half: noise of the allocator, not a leak.

In ten minutes at 40 requests a second it is 350 bytes a request.
"""


@dataclass(frozen=True)
class Sample:
    seconds: float
    resident_mib: float
    open_files: int


class EveryRoute:
    """Mixed traffic, and now and then everything else that clients do, mistakes included."""

    def __init__(self, items: Sequence[str], first_page: str) -> None:
        """Take the ids of all items, and that of a recommendation for nobody in particular."""
        self._mixed = MixedTraffic(items)
        edited = f"/v1/items/{items[1]}"
        self._others = [
            Request("/v1/recommend", {"history": list(items[:100]), "k": 100, "explain": True}),
            Request("/v1/recommend", {"k": 0}),
            Request("/v1/recommend", {"history": ["no such item"], "exclude": list(items[:50])}),
            Request("/v1/recommend", {"history": [items[0]], "after": first_page}),
            Request("/v1/recommend", {"user_id": "user-1", "after": "unknown"}),
            Request("/v1/recommend:batch", {"requests": [{"user_id": "user-1"}, {"k": 20}]}),
            Request("/v1/explore", {"user_id": "user-1"}),
            Request("/v1/taxonomy"),
            Request("/v1/users/user-1"),
            Request("/v1/users/user-2", method="DELETE"),
            Request(f"/v1/items/{items[0]}"),
            Request("/v1/items/none"),
            Request("/v1/items", {"item_id": "new", "title": "A new one"}, method="PUT"),
            Request(f"{edited}:hide", {}),
            Request(f"{edited}:show", {}),
            Request("/v1/info"),
            Request("/metrics"),
        ]

    def __call__(self, number: int) -> Request:
        if number % 5 == 4:
            return self._others[number // 5 % len(self._others)]
        return self._mixed(number)


def sample(service: ServiceProcess, seconds: float) -> Sample:
    process = Path(f"/proc/{service.pid}")
    found = re.search(r"^VmRSS:\s+(\d+) kB", (process / "status").read_text(), re.MULTILINE)
    assert found is not None
    files = len(list((process / "fd").iterdir()))
    return Sample(seconds, int(found[1]) / 1_024, files)


def watch(service: ServiceProcess, load: OpenLoop, minutes: float) -> list[Sample]:
    started = time.monotonic()
    samples = [sample(service, 0)]
    while samples[-1].seconds < 60 * minutes:
        _, now = load.wait_for(SAMPLE_SECONDS)
        samples.append(sample(service, now - started))
    return samples


def growth_mib(samples: Sequence[Sample]) -> float:
    """How much the least-squares line through the second half of the samples rises in it."""
    half = samples[len(samples) // 2 :]
    seconds = np.array([one.seconds for one in half])
    slope = np.polyfit(seconds, [one.resident_mib for one in half], 1)[0]
    return float(slope * (seconds[-1] - seconds[0]))


def table(samples: Sequence[Sample]) -> str:
    rows = [
        f"{one.seconds:8.0f} {one.resident_mib:13.1f} {one.open_files:11d}"
        for one in samples[:: max(1, len(samples) // 20)]
    ]
    return "\n".join([" seconds  resident MiB  open files", *rows])


def draw(samples: Sequence[Sample], path: Path) -> None:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([one.seconds / 60 for one in samples], [one.resident_mib for one in samples])
    axes.axvspan(samples[len(samples) // 2].seconds / 60, samples[-1].seconds / 60, alpha=0.1)
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, None))
    axes.set_title(f"{growth_mib(samples):+.2f} MiB over the second half")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def test_memory_stays_flat(shop_bundle: Path, items: list[str], tmp_path: Path) -> None:
    minutes = float(os.environ.get("COFINE_TEST_SOAK_MINUTES", "10"))
    with (
        running_redis(tmp_path, appendonly=True) as server,
        # Short histories, so that what is read for a request stops growing within the first half.
        running_service(
            shop_bundle, tmp_path, state_url=server.url, history_max_items=20, **PATIENT
        ) as service,
        service.client() as client,
    ):
        first_page = recommend(client, history=items[:1])["recommendation_id"]
        with steady_load([service], EveryRoute(items, first_page), rate=RATE) as load:
            samples = watch(service, load, minutes)
    grown = growth_mib(samples)
    draw(samples, results_folder() / "soak.png")
    print(f"\n{table(samples)}\n")  # noqa: T201
    print(f"{len(load.calls)} calls, answers by status {load.calls.statuses}")  # noqa: T201
    print(f"{grown:+.2f} MiB over the second half, {GROWTH_MAX_MIB} allowed")  # noqa: T201

    assert load.calls.statuses.keys() == {200, 204, 404, 422}
    assert samples[-1].open_files <= samples[len(samples) // 2].open_files + 10
    assert grown < GROWTH_MAX_MIB
