"""A sentence transformer -> `text_encoder/encoder.onnx` and its tokenizer file.

With them a service can embed a new item's text without torch or sentence-transformers.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.decoder import TextGraph
from model.errors import ExportError
from model.training.embedding.text_encoder import SentenceEncoder
from model.training.graphs import export_graph

TOLERANCE = 1e-4
"""Largest allowed difference between two unit vectors' entries."""

PROBES = ("nail polish", "A longer text, with 200 ml & numbers: 1, 2, 3.", "x", "crème brûlée")


class SentenceGraph(nn.Module):
    """Token ids -> unit vectors."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Turn token ids and their mask, both int64 [N, T], into vectors [N, E]."""
        tokens = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        return functional.normalize(self.transformer(tokens)["sentence_embedding"], dim=-1)


def export_text_encoder(folder: Path) -> None:
    """Add graph and tokenizer to a bundle's `text_encoder/` that names a sentence transformer.

    Folders of TF-IDF hold all that is needed already.

    Raises:
        ConfigError: the model that `encoder.json` names is no longer to be had.
        ExportError: the graph does not give the model's vectors.
    """
    facts = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    if facts["kind"] != "sentence-transformer":
        return
    encoder = SentenceEncoder(facts["model"], batch_size=len(PROBES))
    transformer = encoder.transformer.cpu().eval()
    transformer.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    ids = torch.tensor([[101, 2000, 102, 0], [101, 2000, 3000, 102]])
    inputs = {"ids": ids, "mask": (ids > 0).long()}
    export_graph(SentenceGraph(transformer), inputs, folder / "encoder.onnx", ["vectors"])
    tokens = transformer.tokenizer(
        list(PROBES),
        padding=True,
        truncation=True,
        max_length=transformer.max_seq_length,
        return_tensors="np",
    )
    found = TextGraph(folder / "encoder.onnx").encode(tokens["input_ids"], tokens["attention_mask"])
    expected = encoder.encode(PROBES, lambda _: None)
    worst = float(np.abs(found - expected).max())
    if worst > TOLERANCE:
        message = f"text_encoder/encoder.onnx and {facts['model']} differ by {worst:.2e}"
        raise ExportError(message)
