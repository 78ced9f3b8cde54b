"""The scenarios in force: read at start, read again when their file changes, no restart."""

from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path

from service.errors import InvalidFieldError, SettingsError
from service.metrics import Metrics
from service.scenarios import Scenario, Scenarios, parse_scenarios
from service.watched_file import FileKind, WatchedFile


class ScenariosFile:
    """The scenarios in force; none without a file."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        """Read the file at `path`.

        Raises:
            SettingsError: it cannot be used.
        """
        self._file: WatchedFile[Scenarios] | None = None
        if path is not None:
            kind = FileKind(
                "COFINE_SCENARIOS", "scenarios", parse_scenarios, metrics.scenarios_reloads
            )
            self._file = WatchedFile(path, kind)

    @property
    def content(self) -> Scenarios:
        """Each by its name."""
        return {} if self._file is None else self._file.content

    async def start(
        self, try_out: Callable[[Scenario], Awaitable[None]], tried_on: Callable[[], Hashable]
    ) -> None:
        """Try every scenario, and begin to look for changes.

        Args:
            try_out: raises `InvalidFieldError` for one that does not suit the bundle in service.
            tried_on: names the bundle in service, as its catalogue is now.

        Raises:
            SettingsError: one does not.
        """
        if self._file is None:
            return

        async def take(scenarios: Scenarios) -> None:
            for name, scenario in scenarios.items():
                try:
                    await try_out(scenario)
                except InvalidFieldError as error:
                    place = f"{name}{(error.pointer or '').removeprefix('#').replace('/', '.')}"
                    raise SettingsError(f"COFINE_SCENARIOS: {place}: {error.detail}") from None

        await take(self.content)
        self._file.start(take, tried_on)

    async def stop(self) -> None:
        """End the looking."""
        if self._file is not None:
            await self._file.stop()
