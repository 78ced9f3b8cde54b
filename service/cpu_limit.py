"""How many CPUs this process may use.

`os.cpu_count` gives the host's CPUs. In a container the limit is the cgroup's, and a pool sized by
the host's CPUs is throttled.
"""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def cpu_limit(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Return the whole CPUs that this process may use, at least 1.

    The smaller of the CPU affinity and the cgroup quota (version 2, else version 1). A quota of
    1.5 CPUs counts as 1, because a second busy thread would be throttled half of the time.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup_root)
    if quota is None:
        quota = _quota_v1(cgroup_root)
    return max(1, allowed if quota is None else min(allowed, math.floor(quota)))


def _quota_v2(root: Path) -> float | None:
    """Return the CPUs of `cpu.max` ("QUOTA PERIOD" or "max PERIOD"), None without a limit."""
    words = _words(root / "cpu.max")
    if len(words) != 2 or words[0] == "max":
        return None
    return _ratio(words[0], words[1])


def _quota_v1(root: Path) -> float | None:
    """Return the CPUs of `cpu.cfs_quota_us` and `cpu.cfs_period_us`, None without a limit."""
    quota = _words(root / "cpu" / "cpu.cfs_quota_us")
    period = _words(root / "cpu" / "cpu.cfs_period_us")
    if not quota or not period:
        return None
    return _ratio(quota[0], period[0])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []  # this cgroup version is not mounted


def _ratio(quota: str, period: str) -> float | None:
    """Return quota / period, None for the value that means unlimited (-1) or an odd one."""
    try:
        quota_us, period_us = int(quota), int(period)
    except ValueError:
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None
