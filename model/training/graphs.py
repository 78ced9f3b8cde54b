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
from model.training.diffusion_graph import DiffusionDecoderGraph, DiffusionStepGraph
from model.training.diffusion_network import DiffusionNetwork
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
    export_graph(ItemEncoderGraph(network), item, folder / "item_encoder.onnx", ["vectors"])
    if isinstance(network, DiffusionNetwork):
        alive = {"alive": torch.ones(len(tree.biases), dtype=torch.int32), "beams": torch.arange(7)}
        _export_diffusion(network, folder, {"h": h} | search_tree | alive)
        return
    write_decoder_graph(network, folder / "decoder.onnx")
    export_graph(
        StepGraph(network),
        step | search_tree | {"slots": torch.arange(3)},
        folder / "step.onnx",
        ["child_log_probs"],
    )


def _export_diffusion(network: DiffusionNetwork, folder: Path, known: dict[str, Tensor]) -> None:
    """Write `decoder.onnx` and `step.onnx` of a diffusion network."""
    with torch.no_grad():
        table = network.code_table(network.item_vectors())
    levels, ordered = network.codes.shape[1], network.ordered_levels
    codes = {"code_vectors": table.vectors, "code_biases": table.biases.detach()}
    items = {"codes": network.codes, "first_of_bucket": torch.arange(len(network.codes))}
    alive, beams = {"alive": known["alive"]}, {"beams": known["beams"]}
    tree = {name: known[name] for name in ("child_start", "vectors", "biases")}
    sizes = {"pool": torch.arange(7 * levels), "apart": torch.ones(1)}
    evidence = {
        "evidence_leaves": torch.arange(3),
        "evidence": torch.ones(3),
        "evidence_weights": torch.ones(levels),
    }
    openings = {"openings": torch.ones(levels, levels, dtype=torch.bool)}
    names = [*(f"slots_{depth}" for depth in range(ordered)), "slots_range", "slots_items"]
    slots = {name: torch.arange(3 + place) for place, name in enumerate(names)}
    h = {"h": known["h"]}
    export_graph(
        DiffusionDecoderGraph(network),
        h | tree | alive | items | codes | evidence | openings | beams | sizes | slots,
        folder / "decoder.onnx",
        ["leaves", "log_probs"],
    )
    of_items = {name: tree[name] for name in ("vectors", "biases")}
    partly = {"partly": network.codes[:2], "bucket_nodes": torch.zeros(2, 3, dtype=torch.long)}
    export_graph(
        DiffusionStepGraph(network),
        h | partly | of_items | codes,
        folder / "step.onnx",
        ["code_logits", "item_logits"],
    )


FREE_LENGTHS = {
    "items": 1,
    "nodes": 1,
    "child_start": 1,
    "vectors": 1,
    "biases": 1,
    "alive": 1,
    "beams": 1,
    "text": 1,
    "codes": 1,
    "first_of_bucket": 1,
    "evidence_leaves": 1,
    "evidence": 1,
    "pool": 1,
    "partly": 1,
    "bucket_nodes": 2,
    "ids": 2,
    "mask": 2,
}
"""How many leading dimensions of an input are free; `slots` have one, others none."""


def export_graph(
    module: nn.Module, inputs: dict[str, Tensor], path: Path, outputs: list[str]
) -> None:
    """Write `module` as an ONNX file with named inputs and outputs.

    Raises:
        ExportError: it cannot be turned into a graph.
    """
    shapes = [_free(name) for name in inputs]
    # Graphs with a free number of `slots` take them as one variable argument.
    fixed = sum(not name.startswith("slots_") for name in inputs)
    nested = (*shapes[:fixed], tuple(shapes[fixed:])) if fixed < len(shapes) else tuple(shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=nested,
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
    dimensions = 1 if name.startswith("slots") else FREE_LENGTHS.get(name, 0)
    return {axis: Dim.DYNAMIC for axis in range(dimensions)} or None
