"""How stages of a request become parts of its trace, when it has one.

Knows no tracing library: `service/otlp_tracing.py` puts the trace of a request into its context,
and whoever measures a stage tells it here. Without a trace that is one look at the context.
"""

from contextvars import ContextVar
from typing import Protocol


class Trace(Protocol):
    """The trace of one request."""

    def add_stage(self, name: str, started: float, ended: float) -> None:
        """Add a finished stage; times are readings of `time.perf_counter`."""
        ...


trace_in_context: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request that the running code works for."""


def record_stage(name: str, started: float, ended: float) -> None:
    """Add a finished stage to the request's trace, if it has one; `time.perf_counter` times."""
    trace = trace_in_context.get()
    if trace is not None:
        trace.add_stage(name, started, ended)
