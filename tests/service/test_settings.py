from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.cpu_limit import cpu_limit
from service.errors import SettingsError
from service.settings import Settings, load_settings


def test_the_defaults_serve_the_demo_from_memory() -> None:
    settings = load_settings()
    assert settings.bundle == Path("bundles/demo")
    assert settings.state_url.get_secret_value() == "memory://"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.workers == cpu_limit()


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINE_QUEUE_MAX_REQUESTS", "7")
    assert load_settings().queue_max_requests == 7


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINE_DEADLINE", "7")
    with pytest.raises(SettingsError, match=r"COFINE_DEADLINE; known are .*COFINE_DEADLINE_MS"):
        load_settings()


def test_variables_of_tests_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINE_TEST_ANYTHING", "7")
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COFINE_PORT", "tcp://10.0.0.1:8000"),
        ("COFINE_PORT", "0"),
        ("COFINE_WORKERS", "0"),
        ("COFINE_DEADLINE_MS", "1.5"),
        ("COFINE_LOG_LEVEL", "LOUD"),
        ("COFINE_EVENT_IDS_MAX", "99"),
        ("COFINE_STATE_URL", "postgres://secret@host"),
        ("COFINE_STATE_URL", "redis://secret@host:port/0"),
        *((f"COFINE_{name}", "") for name in ("BUNDLES", "KEYS", "SCENARIOS", "EVENT_LOG")),
        ("COFINE_CORS_ORIGINS", "*"),
        ("COFINE_CORS_ORIGINS", "https://shop.example/"),
        ("COFINE_CORS_ORIGINS", "https://shop.example,null"),
    ],
)
def test_an_unusable_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"COFINE_|state_url") as error:
        load_settings()
    assert name in str(error.value) or name.removeprefix("COFINE_").lower() in str(error.value)
    assert "secret" not in str(error.value)


def test_the_window_of_event_ids_must_end_before_the_state() -> None:
    with pytest.raises(SettingsError, match="at least twice"):
        load_settings(state_ttl_seconds=100, event_id_window_seconds=51)


def test_settings_are_frozen_and_hide_the_password() -> None:
    settings = load_settings(state_url="redis://:hunter2@host/0")
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    assert "hunter2" not in repr(settings)


def test_secrets_are_hidden_and_must_be_long() -> None:
    old, new = "hunter2" * 5, "n" * 32
    settings = load_settings(recommendation_secrets=f"{new},{old}")
    assert settings.signing_secrets() == [new, old]
    assert "hunter2" not in repr(settings)
    for short in ("hunter2", f"{new},hunter2", f"{new},"):
        with pytest.raises(SettingsError, match="at least 32 characters each") as caught:
            load_settings(recommendation_secrets=short)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.endswith((".", "503.", "504."))


UNITS = ("_requests", "_ms", "_bytes", "_seconds", "_items", "_entries", "_max", "_url", "_secrets")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_limit_names_its_unit(name: str) -> None:
    assert name.endswith(UNITS) or name in {
        "bundle", "bundles", "host", "port", "log_level", "workers", "threads", "event_log", "keys",
        "cors_origins", "console", "scenarios"
    }  # fmt: skip


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "nonsense\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({}, 64),
    ],
)
def test_the_cpu_limit_is_the_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    def affinity(_: int) -> set[Any]:
        return set(range(64))

    monkeypatch.setattr("os.sched_getaffinity", affinity)
    assert cpu_limit(write(tmp_path, files)) == expected
