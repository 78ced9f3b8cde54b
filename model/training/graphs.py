"""PyTorch modules -> ONNX files.

Everything that can differ between bundles or requests is an input with a free length: the trie,
the vectors, the width of the beam (length of `beams`) and the branching of each depth (length of
`slots_0`, `slots_1`, ...). One export serves every later state of the catalogue.
"""

import logging
import warnings
from pathlib import Path

import torch
from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from model.errors import ExportError
from model.training.decoder_graph import write_decoder_graph
from model.training.network import Network
from model.training.search_graph import EncoderGraph, ItemEncoderGraph, StepGraph


def export_graphs(network: Network, folder: Path) -> None:
    """Write `encoder.onnx`, `decoder.onnx`, `step.onnx` and `item_encoder.onnx` into `folder`.

    Raises:
        ExportError: a module cannot be turned into a graph.
    """
    network = network.cpu().eval()
    levels = len(network.shape.codebook_sizes)
    width = network.shape.width
    with torch.no_grad():
        tree = network.tree(network.item_vectors())
    search_tree = {
        "child_start": tree.child_start.to(torch.int32),
        "vectors": tree.vectors,
        "biases": tree.biases.detach(),
    }
    h = torch.zeros(width)
    step = {"h": h, "nodes": torch.arange(4), "depth": torch.tensor([0])}
    known = min(5, network.shape.history_length)
    item = {"text": torch.zeros(3, len(network.text_basis)), "codes": torch.zeros(3, levels).long()}
    export_graph(
        EncoderGraph(network), {"items": torch.zeros(known, width)}, folder / "encoder.onnx", ["h"]
    )
    write_decoder_graph(network, folder / "decoder.onnx")
    export_graph(
        StepGraph(network),
        step | search_tree | {"slots": torch.arange(3)},
        folder / "step.onnx",
        ["child_log_probs"],
    )
    export_graph(ItemEncoderGraph(network), item, folder / "item_encoder.onnx", ["vectors"])


FREE_LENGTHS = {
    "items": 1,
    "nodes": 1,
    "slots": 1,
    "child_start": 1,
    "vectors": 1,
    "biases": 1,
    "text": 1,
    "codes": 1,
    "ids": 2,
    "mask": 2,
}
"""How many leading dimensions of an input are free; others have none."""


def export_graph(
    module: nn.Module, inputs: dict[str, Tensor], path: Path, outputs: list[str]
) -> None:
    """Write `module` as an ONNX file with named inputs and outputs.

    Raises:
        ExportError: it cannot be turned into a graph.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=tuple(_free(name) for name in inputs),
                dynamo=True,
                verbose=False,
                optimize=True,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            message = f"{path.name} cannot be exported: {error}"
            raise ExportError(message) from error
    if program is None:  # pragma: no cover - only without `dynamo`
        raise AssertionError
    # The exporter notes for every node the lines of source, with folders, that it came from: no
    # business of the bundle's, and its id would depend on where it was made.
    ClearMetadataAndDocStringPass()(program.model)
    program.save(path, external_data=False)


def _free(name: str) -> dict[int, Dim] | None:
    return {axis: Dim.DYNAMIC for axis in range(FREE_LENGTHS.get(name, 0))} or None
