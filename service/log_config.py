"""Log lines as JSON, written by a thread of their own.

Lines carry the request id and never a user id, an item id or a query string: routes are logged as
templates, failures as the exception's class and place. Callers pass facts in `extra`; only the
names in `LOGGED_FACTS` are written, so that a careless `extra` cannot leak.
"""

import json
import logging
import queue
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from types import TracebackType
from typing import TextIO

LOGGED_FACTS = (
    "request_id",
    "route",
    "method",
    "status",
    "duration_ms",
    "error",
    "where",
    "reason",
    "version",
    "bundle",
    "items",
    "workers",
    "state",
    "refused",
    "change",
    "key",
    "rollout",
    "errors",
    "masters",
)
_LINES_WAITING_MAX = 10_000

request_id_in_context: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that the running code works for."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message and the facts given in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, ASCII only."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for fact in LOGGED_FACTS:
            value = record.__dict__.get(fact)
            if value is not None:
                line[fact] = value
        return json.dumps(line, default=str)


class _RequestIdFilter(logging.Filter):
    """Stamps the request id while still in the context that logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = request_id_in_context.get()
        return True


class _LossyQueueHandler(QueueHandler):
    """Drops lines when the writing thread cannot keep up: a full pipe must not stop answers."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # Only the class of an exception is kept: its text may hold a user's data.
        if record.exc_info:
            kind, error, _ = record.exc_info
            record.error = kind.__name__ if kind else None
            record.where = places(error) if error else None
        record.message = record.getMessage()
        record.msg, record.args = record.message, None
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def places(error: BaseException, *, limit: int = 8) -> list[str]:
    """Return where `error` was raised, innermost first, as `file:line function`."""
    found: list[str] = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        name = "/".join(code.co_filename.split("/")[-2:])
        found.append(f"{name}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    return found[::-1][:limit]


def start_logging(level: str, stream: TextIO | None = None) -> QueueListener:
    """Send every logger's lines through one queue to `stream` (default stdout).

    Returns the running listener; call its `stop()` to write what still waits.
    """
    writer = logging.StreamHandler(stream or sys.stdout)
    writer.setFormatter(JsonFormatter())
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_LINES_WAITING_MAX)
    handler = _LossyQueueHandler(lines)
    handler.addFilter(_RequestIdFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    listener = QueueListener(lines, writer)
    listener.start()
    return listener
