import subprocess
import sys

import pytest

LARGE_BYTES = 64 * 2**20
ROUNDS = 10
CODE = f"""
import resource

import numpy as np

from model.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({ROUNDS}):
        np.empty({LARGE_BYTES}, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_a_large_block_is_cleared_by_the_kernel_once() -> None:
    # A process of its own: the setting stays. NumPy would ask for huge pages, torch does not.
    found = subprocess.run(
        [sys.executable, "-c", CODE],
        env={"NUMPY_MADVISE_HUGEPAGE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, found.stdout.split())
    assert before > ROUNDS * LARGE_BYTES // 65_536
    assert after < before / 10
