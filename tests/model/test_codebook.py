import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import codebook as codebook_module
from model.codebook import nearest_codes


@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(0, 40),
    codes=st.integers(1, 20),
    width=st.integers(1, 6),
)
def test_equals_brute_force(seed: int, items: int, codes: int, width: int) -> None:
    random = np.random.default_rng(seed)
    # A coarse grid makes equal distances frequent; they must go to the lowest code.
    vectors = random.integers(-2, 3, (items, width)).astype(np.float32)
    codebook = random.integers(-2, 3, (codes, width)).astype(np.float32)

    distances = ((vectors[:, None, :] - codebook[None, :, :]) ** 2).sum(axis=2)

    found = nearest_codes(vectors, codebook)
    assert found.dtype == np.int32
    assert found.tolist() == distances.argmin(axis=1).tolist()


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(50, 8)).astype(np.float32)
    codebook = random.normal(size=(9, 8)).astype(np.float32)
    whole = nearest_codes(vectors, codebook)

    monkeypatch.setattr(codebook_module, "CHUNK_ROWS", 7)

    assert nearest_codes(vectors, codebook).tolist() == whole.tolist()
    alone = [int(nearest_codes(vector[None], codebook)[0]) for vector in vectors]
    assert alone == whole.tolist()


@pytest.mark.parametrize(("items", "codes"), [((2, 3), (0, 3)), ((2, 3), (4, 2))])
def test_refuses_other_shapes(items: tuple[int, int], codes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        nearest_codes(np.zeros(items, np.float32), np.zeros(codes, np.float32))
