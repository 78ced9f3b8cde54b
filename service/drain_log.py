"""`python -m service.drain_log FOLDER`: move the event log out of Redis, for `cofine prepare`.

Reads COFINE_EVENT_LOG and COFINE_STATE_URL as the service does. What Redis holds is written to
segments in the folder, synchronised, and only then taken out of Redis: a drain that is killed loses
nothing and writes at most one batch twice, whose events `prepare` counts once. Run it before every
training, and more often where the streams would fill. Exit codes: 0; 3 when the settings cannot be
used; 1 when Redis or the folder fails, and what was moved until then stays moved.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from service.errors import SettingsError, StateUnavailableError
from service.log_segment import SEGMENT_MAX_BYTES, Segment
from service.metrics import Metrics
from service.redis_event_log import STREAMS, RedisEventLog
from service.serving import make_event_log, make_store
from service.settings import Settings, load_settings

EXIT_FAILED = 1
EXIT_UNUSABLE = 3
_DEADLINE_SECONDS = 10.0
"""For each batch; nobody waits for an answer here."""


def main() -> None:
    """Move everything that is there."""
    parser = argparse.ArgumentParser(prog="python -m service.drain_log", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the segments; it must be there")
    folder = parser.parse_args().folder
    try:
        moved = asyncio.run(drain(_settings(), folder))
    except SettingsError as error:
        sys.stderr.write(f"drain_log: {error}\n")
        sys.exit(EXIT_UNUSABLE)
    except StateUnavailableError:
        sys.stderr.write("drain_log: Redis at COFINE_STATE_URL does not answer; try again\n")
        sys.exit(EXIT_FAILED)
    except OSError as error:
        sys.stderr.write(f"drain_log: {folder} cannot be written: {error.strerror}\n")
        sys.exit(EXIT_FAILED)
    sys.stdout.write(f"{moved} records moved to {folder}\n")


async def drain(settings: Settings, folder: Path) -> int:
    """Move what the streams hold into segments below `folder`; return how many records.

    Raises:
        SettingsError: the event log is not in Redis.
        StateUnavailableError: Redis does not answer.
        OSError: the folder cannot be written.
    """
    metrics = Metrics()
    store = make_store(settings, metrics)
    log = make_event_log(store, settings, metrics)
    if not isinstance(log, RedisEventLog):
        raise SettingsError("COFINE_EVENT_LOG is not redis: there is nothing to drain")
    await store.start()
    try:
        return sum([await _drain_stream(log, stream, folder) for stream in STREAMS])
    finally:
        await store.close()


async def _drain_stream(log: RedisEventLog, stream: str, folder: Path) -> int:
    moved = 0
    segment: Segment | None = None
    try:
        async for batch in log.batches(stream, deadline_seconds=_DEADLINE_SECONDS):
            segment = segment or Segment(folder)
            segment.write(b"".join(batch.lines), durably=True)
            await log.remove(batch, deadline_seconds=_DEADLINE_SECONDS)
            moved += len(batch.ids)
            if segment.bytes >= SEGMENT_MAX_BYTES:
                segment.close()
                segment = None
    finally:
        if segment is not None:
            segment.close()
    return moved


def _settings() -> Settings:
    patient_ms = round(_DEADLINE_SECONDS * 1_000)
    return load_settings(state_read_deadline_ms=patient_ms, state_write_deadline_ms=patient_ms)


if __name__ == "__main__":
    main()
