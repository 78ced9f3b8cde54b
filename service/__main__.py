"""`python -m service`: one process that serves one bundle over HTTP.

Exit codes: 0 after Ctrl-C, 3 when the settings or the bundle cannot be used (one line on standard
error says why). After SIGTERM readiness says no, requests are served for `drain_seconds` more, then
the rest is finished.
"""

import math
import signal
import sys
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from model.errors import ModelError
from service.app import create_app
from service.errors import SettingsError
from service.log_config import start_logging
from service.serving import open_bundle, recommender_factory
from service.settings import Settings, load_settings

EXIT_UNUSABLE = 3


class DrainingServer(uvicorn.Server):
    """Keeps serving for a while after SIGTERM, with readiness at no."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        finish_seconds = math.ceil(settings.deadline_ms / 1_000) + 1
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=finish_seconds,
            )
        )
        self._app = app
        self._drain_seconds = settings.drain_seconds
        self._stop_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first SIGTERM; stop at once at any other signal."""
        is_draining = self._stop_at < math.inf
        if sig != signal.SIGTERM or is_draining or not self.started:
            super().handle_exit(sig, frame)
            return
        self._app.state.serving.is_draining = True
        self._stop_at = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop now."""
        return await super().on_tick(counter) or time.monotonic() >= self._stop_at


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load_settings()
        bundle = open_bundle(settings)
    except (SettingsError, ModelError) as error:
        sys.stderr.write(f"cofine-service: {type(error).__name__}: {error}\n")
        sys.exit(EXIT_UNUSABLE)
    listener = start_logging(settings.log_level)
    try:
        DrainingServer(create_app(settings, bundle, recommender_factory(bundle)), settings).run()
    except KeyboardInterrupt:
        return
    finally:
        listener.stop()


if __name__ == "__main__":
    main()
