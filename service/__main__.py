"""`python -m service`: one process that serves one bundle over HTTP.

Exit codes: 0 after SIGTERM or Ctrl-C; 3 when the settings or the bundle cannot be used (one line on
standard error says why) or the address is taken (the last error of the log says so). After SIGTERM
readiness says no and requests are served for `drain_seconds` more, on connections that close after
their answer; then the rest is finished. A second SIGTERM ends the wait.
"""

import math
import signal
import sys
import time
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from model.errors import ModelError
from service.app import create_app
from service.connections import BoundedConnection
from service.errors import SettingsError
from service.log_config import start_logging
from service.serving import open_bundle, recommender_factory
from service.settings import Settings, load_settings

EXIT_UNUSABLE = 3
_CLOSE = (b"connection", b"close")
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another one waits for it.

Python's own 5 ms are longer than a recommendation takes: while requests keep the event loop busy, a
worker would wait so long after every call into ONNX Runtime.
"""


class DrainingServer(uvicorn.Server):
    """Keeps serving for a while after SIGTERM, with readiness at no."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        patience_seconds = settings.body_deadline_ms / 1_000
        finish_seconds = math.ceil(settings.deadline_ms / 1_000) + 1
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=partial(BoundedConnection, patience_seconds=patience_seconds),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",  # its library logs paths, and so ids
                timeout_graceful_shutdown=finish_seconds,
            )
        )
        self._app = app
        self._drain_seconds = settings.drain_seconds
        self._stop_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first SIGTERM; stop at once at the next or any other signal."""
        if sig != signal.SIGTERM or not self.started:
            super().handle_exit(sig, frame)
            return
        # Not left to uvicorn, which would end the process by the signal instead of with code 0.
        is_draining = self._stop_at < math.inf
        self._stop_at = time.monotonic() + (0 if is_draining else self._drain_seconds)
        self._app.state.serving.is_draining = True
        # A connection kept alive would be closed later, perhaps under a request on its way.
        self.config.encoded_headers.append(_CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop now."""
        return await super().on_tick(counter) or time.monotonic() >= self._stop_at


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load_settings()
        bundle = open_bundle(settings)
        app = create_app(settings, bundle, recommender_factory(bundle))
    except (SettingsError, ModelError) as error:
        reason = _printable(" ".join(str(error).split()))  # one line, whatever it is from
        sys.stderr.write(f"cofine-service: {type(error).__name__}: {reason}\n")
        sys.exit(EXIT_UNUSABLE)
    sys.setswitchinterval(SWITCH_SECONDS)
    # Each worker multiplies alone. More threads of NumPy's BLAS gain nothing on matrices this small
    # and wait for the next ones by turning in circles: several times the time of a request.
    threadpool_limits(1)
    listener = start_logging(settings.log_level)
    try:
        DrainingServer(app, settings).run()
    except KeyboardInterrupt:
        return
    finally:
        listener.stop()


def _printable(text: str) -> str:
    """Return `text` with what a terminal would obey spelt out: a bundle may have odd names."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


if __name__ == "__main__":
    main()
