from pathlib import Path

import numpy as np
import pytest

from model.errors import BundleError
from model.text_encoder import open_text_encoder
from model.training.embedding.text_encoder import (
    PACKAGED_MODEL,
    SentenceEncoder,
    TextEncoder,
    TfidfEncoder,
    missing_packages,
)
from model.training.sentence_graph import export_text_encoder
from model.training.stage_files import save_json
from tests.required import skip_for_want_of

TEXTS = [
    "Nail polish, RED nail polish!",
    "crème brûlée 200 ml",
    "",
    "unknownword",
    "a lamp for the garden " * 80,
]


def export(encoder: TextEncoder, folder: Path) -> Path:
    save_json(folder / "encoder.json", encoder.export(folder))
    return folder


def test_tfidf_gives_the_vectors_of_training(tmp_path: Path) -> None:
    corpus = [*TEXTS[:2], "red lamp for the garden", "nail file", "200 ml shampoo"]
    encoder = TfidfEncoder(corpus, dimensions=4, seed=0)

    opened = open_text_encoder(export(encoder, tmp_path))

    assert opened.width == 4
    assert np.allclose(opened.encode(TEXTS), encoder.encode(TEXTS, lambda _: None), atol=1e-5)


def test_the_sentence_encoder_gives_the_vectors_of_training(tmp_path: Path) -> None:
    missing = missing_packages(PACKAGED_MODEL)
    if missing:
        skip_for_want_of("sentence encoder", f"install {' and '.join(missing)}: make install-text")
    encoder = SentenceEncoder(PACKAGED_MODEL, batch_size=8)
    export_text_encoder(export(encoder, tmp_path))

    opened = open_text_encoder(tmp_path)

    expected = encoder.encode(TEXTS, lambda _: None)
    expected[TEXTS.index("")] = 0  # the stage `embed` never embeds an empty text
    assert np.allclose(opened.encode(TEXTS), expected, atol=1e-4)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="export it again"):
        open_text_encoder(tmp_path)
