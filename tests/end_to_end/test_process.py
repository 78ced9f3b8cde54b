"""The process itself: what it loads, how it refuses to start, how it stops."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import pytest

from model.bundle import read_manifest, seal
from tests.end_to_end.service_process import (
    START_SECONDS,
    ServiceProcess,
    all_at_once,
    environment,
    free_port,
    recommend,
    running_service,
    wait_until,
)
from tests.service.problem_shape import check_problem

OFFLINE_ONLY = ("torch", "polars", "typer", "faiss", "sklearn", "pandas", "onnx", "scipy", "rich")


def test_the_serving_process_maps_no_library_of_the_offline_half(
    shop_service: ServiceProcess,
) -> None:
    mapped = Path(f"/proc/{shop_service.pid}/maps").read_text()
    assert "onnxruntime" in mapped, "the check looks at the wrong process"
    loaded = {name for name in OFFLINE_ONLY if f"/site-packages/{name}/" in mapped}
    assert not loaded


def test_the_service_imports_no_module_of_the_offline_half() -> None:
    program = "import json, sys, service.__main__; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=True,
    )
    modules = json.loads(ended.stdout)
    assert "onnxruntime" in modules
    offline = {*OFFLINE_ONLY, "model.training"}
    assert not [name for name in modules if name in offline]


WATCHED = """
import json, os, signal, sys, threading, time, urllib.request
from threadpoolctl import threadpool_info
import service.__main__

def is_ready():
    try:
        return urllib.request.urlopen(sys.argv[1]).status == 200
    except OSError:
        return False

def watch():
    while not is_ready():
        time.sleep(0.05)
    print(json.dumps([each["num_threads"] for each in threadpool_info()]), file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
service.__main__.main()
"""


def test_each_worker_multiplies_alone(any_bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED, f"http://127.0.0.1:{port}/readyz"],
        env=environment(bundle=any_bundle.resolve(), port=port, drain_seconds=0)
        | {"OPENBLAS_NUM_THREADS": "4"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=True,
    )
    threads = json.loads(ended.stderr)
    assert threads, "NumPy has a library for products of matrices"
    assert set(threads) == {1}


def remove_all(bundle: Path) -> None:
    shutil.rmtree(bundle)


def flip_a_bit(bundle: Path) -> None:
    path = bundle / "node_vectors.npy"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def lose_a_file(bundle: Path) -> None:
    (bundle / "trie.npy").unlink()


def drop_a_field(bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["levels"]
    manifest["items"] = 0
    path.write_text(json.dumps(manifest))


def promise_other_answers(bundle: Path) -> None:
    """Keep all hashes right, so that only the golden cases can tell."""
    path = bundle / "golden.json"
    cases = json.loads(path.read_text())
    cases[-1]["items"].reverse()
    cases[-1]["scores"] = [score - 1 for score in cases[-1]["scores"]]
    path.write_text(json.dumps(cases))
    hash_again(bundle)


def spoil_a_graph(bundle: Path) -> None:
    (bundle / "encoder.onnx").write_bytes(b"no graph\nat all\n" * 10)
    hash_again(bundle)


def hash_again(bundle: Path) -> None:
    seal(bundle, read_manifest(bundle))


DAMAGES: dict[Callable[[Path], None], str] = {
    remove_all: "is not a bundle: it has no manifest.json",
    flip_a_bit: "node_vectors.npy is damaged",
    lose_a_file: "has no trie.npy",
    drop_a_field: "is not a manifest",
    promise_other_answers: "is answered differently here than at export",
    spoil_a_graph: "encoder.onnx cannot be run",
}


@dataclass
class Refusal:
    status: int
    stdout: str
    stderr: str
    was_ready: bool


@pytest.fixture(scope="module")
def refusals(
    any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Callable[[Path], None], Refusal]:
    """What becomes of starts on damaged bundles, all at the same time."""
    services = {}
    for damage in DAMAGES:
        folder = tmp_path_factory.mktemp(damage.__name__)
        bundle = folder / "bundle"
        shutil.copytree(any_bundle, bundle)
        damage(bundle)
        services[damage] = ServiceProcess(bundle, folder)
        services[damage].spawn()
    was_ready = dict.fromkeys(DAMAGES, False)

    def all_ended() -> bool:
        for damage, service in services.items():
            was_ready[damage] |= service.status("/readyz") is not None
        return all(service.has_ended for service in services.values())

    try:
        wait_until(all_ended, "all processes end", seconds=START_SECONDS)
        return {
            damage: Refusal(
                service.wait(),
                service.stdout.read_text(),
                service.stderr.read_text(),
                was_ready[damage],
            )
            for damage, service in services.items()
        }
    finally:
        for service in services.values():
            service.kill()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_bad_bundle_is_refused_with_code_3_and_one_line(
    refusals: dict[Callable[[Path], None], Refusal], damage: Callable[[Path], None]
) -> None:
    found = refusals[damage]
    assert found.status == 3
    assert found.stderr.startswith("cofine-service: BundleError: ")
    assert DAMAGES[damage] in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert not found.was_ready


def test_a_port_in_use_is_told(
    shop_service: ServiceProcess, any_bundle: Path, tmp_path: Path
) -> None:
    second = ServiceProcess(any_bundle, tmp_path, port=shop_service.port)
    try:
        second.spawn()
        assert second.wait() == 3
    finally:
        second.kill()
    assert second.stderr.read_text() == ""
    errors = [
        line["message"]
        for line in map(json.loads, second.stdout.read_text().splitlines())
        if line["level"] == "error"
    ]
    assert len(errors) == 1
    assert "address already in use" in errors[0]
    assert shop_service.status("/readyz") == 200


def test_a_burst_beyond_the_queue_is_answered_429(any_bundle: Path, tmp_path: Path) -> None:
    with running_service(
        any_bundle, tmp_path, workers=1, queue_max_requests=3, deadline_ms=20_000
    ) as service:
        with service.client() as client:
            history = [item["item_id"] for item in recommend(client, k=5)["items"]]
        answers = all_at_once(service, [{"history": history, "k": 100}] * 40)
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 40
        for answer in refused:
            check_problem(answer, 429, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
        assert service.metric('cofine_admission_rejected_total{reason="queue_full"}') == len(
            refused
        )
        assert service.status("/readyz") == 200
        with service.client() as client:
            assert len(recommend(client, history=history)["items"]) == 10


def test_clients_that_never_finish_hold_nobody_up(any_bundle: Path, tmp_path: Path) -> None:
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
    with (
        running_service(any_bundle, tmp_path, body_deadline_ms=300) as service,
        service.client() as client,
        ExitStack() as sockets,
    ):
        address = ("127.0.0.1", service.port)
        halted = [sockets.enter_context(socket.create_connection(address)) for _ in range(50)]
        for one in halted:
            one.sendall(head + b'Content-Length: 100\r\n\r\n{"k"')
        assert len(recommend(client, k=3)["items"]) == 3
        for one in halted:
            one.settimeout(START_SECONDS)
            answer = b"".join(iter(partial(one.recv, 4096), b""))  # until it is closed
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"body_too_slow" in answer


def test_sigterm_loses_no_request(any_bundle: Path, tmp_path: Path) -> None:
    requests = 60
    with running_service(
        any_bundle, tmp_path, workers=1, drain_seconds=1.5, deadline_ms=20_000
    ) as service:
        # Requests that have arrived but that nobody has read when the signal comes.
        answers = all_at_once(
            service,
            [{"k": 100}] * requests,
            before_it_goes_on=lambda: service.signal(signal.SIGTERM),
        )
        assert [answer.status_code for answer in answers] == [200] * requests
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        assert service.wait() == 0
        assert service.status("/readyz") is None
    assert service.stderr.read_text() == ""


def test_draining_says_not_ready_and_a_second_sigterm_ends_it(
    any_bundle: Path, tmp_path: Path
) -> None:
    with running_service(any_bundle, tmp_path, drain_seconds=600) as service:
        with service.client() as client:
            assert "connection" not in recommend_headers(client)
            service.signal(signal.SIGTERM)
            wait_until(lambda: service.status("/readyz") == 503, "readiness says no")
            check_problem(client.get("/readyz"), 503, "not_ready")
            assert service.status("/livez") == 200
            assert recommend_headers(client)["connection"] == "close"
        service.signal(signal.SIGTERM)
        assert service.wait() == 0


def recommend_headers(client: httpx2.Client) -> httpx2.Headers:
    response = client.post("/v1/recommend", json={})
    assert response.status_code == 200
    return response.headers
