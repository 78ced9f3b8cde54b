"""Memory that training frees and takes again: tens of megabytes at a time, thousands of times."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have this process keep what it frees, where its C library is glibc.

    By default glibc maps every large block anew and gives it back at once, and the kernel clears
    each of its pages: a good part of the time of a training on a CPU.
    """
    if sys.platform != "linux":
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if tune is not None:
        tune(_MMAP_MAX, 0)
        tune(_TRIM_THRESHOLD, _NEVER)
