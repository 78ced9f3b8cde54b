import faiss
import numpy as np

from model.codebook import nearest_codes
from model.training.tokenizers.kmeans import distinct_rows, fit_codebook


def test_finds_separate_clusters() -> None:
    random = np.random.default_rng(0)
    cluster = np.repeat(np.arange(4), 50)
    vectors = 10.0 * np.eye(4, dtype=np.float32)[cluster]
    vectors += random.normal(scale=0.1, size=vectors.shape).astype(np.float32)

    codebook = fit_codebook(vectors, 4, iterations=25, seed=3)

    codes = nearest_codes(vectors, codebook)
    assert len({(int(a), int(b)) for a, b in zip(cluster, codes, strict=True)}) == 4


def test_never_more_codes_than_distinct_vectors() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0.0, 1], [-0.0, 1]], dtype=np.float32)

    codebook = fit_codebook(vectors, 256, iterations=5, seed=0)

    assert codebook.tolist() == distinct_rows(vectors).tolist() == [[1, 0], [0, 1]]


def test_same_bytes_for_any_thread_count() -> None:
    vectors = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    threads = faiss.omp_get_max_threads()
    found = []
    for count in (1, 2):
        faiss.omp_set_num_threads(count)
        found.append(fit_codebook(vectors, 64, iterations=10, seed=1).tobytes())
        assert faiss.omp_get_max_threads() == count
    faiss.omp_set_num_threads(threads)

    assert found[0] == found[1]
