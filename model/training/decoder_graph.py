"""decoder.onnx, operator by operator: the beam search of one request over children that exist.

`model/training/search_graph.py` computes the same for a batch of histories, on rectangles of beams
by the largest number of children of a depth. Most places of these rectangles are empty, and reading
vectors for them was most of the work of a request. Here the rectangle of a depth is cut into blocks
of `BLOCK` children, and only the blocks of parents with several children are read and scored; their
logits return to the rectangle for the softmax over all children of a parent. An only child has the
probability 1 whatever the network says, and nothing is asked. What every level computes of h alone
is computed once, and what it computes of a node alone is read (`model/node_hidden.py`). Written
with ONNX operators, because a block costs one multiplication of a matrix and a vector this way.
Every export is checked against PyTorch and NumPy (`model/training/parity.py`).

Shapes: W beams, C slots of a depth in K = C / BLOCK blocks, R blocks that hold children, Q beams
whose node has several, B blocks of these, D width, L levels, M trie nodes, I inner ones, A of which
have a row in `hidden`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder
from torch import Tensor

from model.decoder import BLOCK
from model.training.network import LevelQuery, Network
from model.types import AnyArray, FloatArray

OPSET = 20
IR_VERSION = 10


def write_decoder_graph(network: Network, path: Path) -> None:
    """Write `decoder.onnx`: h and the tree -> item nodes [W], log_probs [W, L + 1], pruned [L + 1].

    Inputs are h [D], child_start [I + 1], vectors [M, D], biases [M], hidden [A, 2 D], hidden_rows
    [I], alive [M], beams [W] and slots_0 .. slots_L. Of `beams` only the length counts; `slots` of
    a depth are 0 .. C - 1, C a multiple of `BLOCK` and no less than the largest number of children,
    except at depth 0, where C is that number. `model.training.search_graph.Beams` describes the
    outputs.
    """
    graph = _DecoderGraph(network).graph
    ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name="cofine"), path)


def node_weights(network: Network) -> FloatArray:
    """What a node's vector is multiplied by for the query at each depth [L + 1, D, 2 D].

    The table that `model.node_hidden` makes with it is an input of the graph.
    """
    layers = [_numbers(layer.inner.weight) for layer in _layers(network)]
    return np.stack([weights[:, network.shape.width :].T for weights in layers])


def _layers(network: Network) -> list[LevelQuery]:
    return [level for level in network.generator.levels if isinstance(level, LevelQuery)]


@dataclass(frozen=True)
class _Prefixes:
    """What a level hands to the next one."""

    nodes: ir.Value
    """[W]"""
    totals: ir.Value
    """[W], -inf for a place that no prefix fills"""
    steps: ir.Value
    """[W, depth]"""
    pruned: ir.Value
    """[1]"""


@dataclass(frozen=True)
class _Children:
    """The blocks that hold children of the beams."""

    nodes: ir.Value
    """[R, BLOCK]; places without a child repeat the parent's last one"""
    exist: ir.Value
    """[W, K, BLOCK]"""
    places: ir.Value
    """[R, 2] beam and block of the rectangle"""
    owners: ir.Value
    """[R] beam"""


@dataclass(frozen=True)
class _Choices:
    """The blocks that have to be scored: those of parents with several children."""

    parents: ir.Value
    """[Q] nodes"""
    nodes: ir.Value
    """[B, BLOCK] children"""
    places: ir.Value
    """[B, 2] beam and block of the rectangle"""
    owners: ir.Value
    """[B] which of `parents`"""


class _DecoderGraph:
    """The graph; one method per part of a level."""

    def __init__(self, network: Network) -> None:
        width, levels = network.shape.width, len(network.shape.codebook_sizes)
        self._width = width
        self._tree = _inputs(width, levels)
        opset = {"": OPSET}
        inputs = list(self._tree.values())
        self.graph = ir.Graph(inputs, [], nodes=[], opset_imports=opset, name="decoder")
        self._builder = GraphBuilder(self.graph)
        self._op = self._builder.op
        self._zero, self._one = self._constant("zero", [0]), self._constant("one", [1])
        self._axis = self._constant("axis", np.array(0))
        self._flat, self._two = self._constant("flat", [-1]), self._constant("two", [2])
        self._none = self._constant("none", np.array([0], dtype=np.int32))
        self._never = self._constant("never", np.array([-np.inf], dtype=np.float32))
        layers = _layers(network)
        self._measure()
        self._read_h(layers)
        reached = [self._root(layers[0])]
        for depth in range(1, levels + 1):
            reached.append(self._level(depth, layers[depth], reached[-1]))
        self._finish(reached)

    def _measure(self) -> None:
        """Sizes that come with the inputs."""
        op = self._op
        beams = op.Shape(self._tree["beams"])
        self._candidates = op.Add(beams, self._one)
        self._kept_and_next = op.Concat(beams, self._one, axis=0)
        # There are W + 1 candidates on every level, whatever the tree.
        self._spare = op.Expand(self._never, self._candidates)

    def _read_h(self, layers: Sequence[LevelQuery]) -> None:
        """The part of each level's query that is the same for all beams."""
        op, width, count = self._op, self._width, len(layers)
        h = op.Unsqueeze(self._tree["h"], self._zero)
        inner = np.concatenate([_numbers(layer.inner.weight)[:, :width] for layer in layers])
        bias = np.concatenate([_numbers(layer.inner.bias) for layer in layers])
        hidden = op.Gemm(h, self._constant("inner_h", inner.T), self._constant("inner_bias", bias))
        self._hidden_h = op.Split(hidden, axis=1, num_outputs=count, _outputs=count)
        outer = np.stack([_numbers(layer.outer.bias) for layer in layers])
        query = op.Add(h, self._constant("outer_bias", outer))
        self._query_h = op.Split(query, axis=0, num_outputs=count, _outputs=count)

    def _query(self, depth: int, layer: LevelQuery, nodes: ir.Value) -> ir.Value:
        """What the children of `nodes` [Q] are asked [Q, D]."""
        op = self._op
        outer = self._constant(f"outer_{depth}", _numbers(layer.outer.weight).T)
        known = op.Gather(self._tree["hidden"], op.Gather(self._tree["hidden_rows"], nodes))
        hidden = op.Gelu(op.Add(known, self._hidden_h[depth]))
        query: ir.Value = op.Gemm(hidden, outer, self._query_h[depth])
        return query

    def _root(self, layer: LevelQuery) -> _Prefixes:
        """The first choice: the root's children are the nodes 1 .. C."""
        op, tree, one = self._op, self._tree, self._one
        end = op.Add(op.Shape(tree["slots_0"]), one)
        query = self._query(0, layer, self._zero)
        vectors = op.Slice(tree["vectors"], one, end)
        logits = op.Gemm(query, vectors, op.Slice(tree["biases"], one, end), transB=1)
        log_probs = op.Squeeze(op.LogSoftmax(logits, axis=-1), self._zero)
        legal = op.Greater(op.Slice(tree["alive"], one, end), self._none)
        children = op.Add(tree["slots_0"], one)
        totals, index, pruned = self._best(op.Where(legal, log_probs, self._never))
        steps = op.Unsqueeze(op.Gather(log_probs, index), one)
        return _Prefixes(op.Gather(children, index), totals, steps, pruned)

    def _level(self, depth: int, layer: LevelQuery, beams: _Prefixes) -> _Prefixes:
        """Score the children of all beams, keep the best, step down."""
        op, one = self._op, self._one
        children, choices = self._children(depth, beams.nodes)
        query = self._query(depth, layer, choices.parents)
        log_probs = self._log_probs(query, children, choices)
        legal = op.Greater(op.Gather(self._tree["alive"], children.nodes), self._none)
        totals = op.Gather(op.Unsqueeze(beams.totals, one), children.owners)
        scores = op.Where(legal, op.Add(totals, log_probs), self._never)
        totals, index, pruned = self._best(op.Reshape(scores, self._flat))
        nodes = op.Gather(op.Reshape(children.nodes, self._flat), index)
        parents = op.Gather(children.owners, op.Div(index, self._constant("block", [BLOCK])))
        chosen = op.Gather(op.Reshape(log_probs, self._flat), index)
        past = op.Gather(beams.steps, parents)
        steps = op.Concat(past, op.Unsqueeze(chosen, one), axis=1)
        return _Prefixes(nodes, totals, steps, pruned)

    def _children(self, depth: int, parents: ir.Value) -> tuple[_Children, _Choices]:
        """The blocks of children of `parents` [W]."""
        op, tree = self._op, self._tree
        rows = op.Reshape(parents, self._constant("column", [-1, 1, 1]))
        first = op.Gather(tree["child_start"], rows)
        end = op.Gather(tree["child_start"], op.Add(rows, self._one))
        blocks = op.Reshape(tree[f"slots_{depth}"], self._constant("blocks", [-1, BLOCK]))
        end = op.Cast(end, to=ir.DataType.INT64)
        nodes = op.Add(op.Cast(first, to=ir.DataType.INT64), blocks)
        exist = op.Less(nodes, end)
        # Places without a child repeat the last one, so that each number is a node of this depth.
        nodes = op.Min(nodes, op.Sub(end, self._one))
        begun = op.Gather(exist, self._constant("first_of_block", np.array(0)), axis=2)
        places = op.Transpose(op.NonZero(begun))
        owners = op.Gather(places, self._constant("beam", np.array(0)), axis=1)
        blocks_of_all = _Children(op.GatherND(nodes, places), exist, places, owners)
        # Whether there is a second child, per beam.
        second = op.Gather(exist, self._constant("first_block", np.array(0)), axis=1)
        several = op.Gather(second, self._constant("second_of_block", np.array(1)), axis=1)
        return blocks_of_all, self._choices(parents, blocks_of_all, several)

    def _choices(self, parents: ir.Value, children: _Children, several: ir.Value) -> _Choices:
        """Those of `children` whose parent has `several` [W]."""
        op = self._op
        blocks = op.Squeeze(op.NonZero(op.Gather(several, children.owners)), self._zero)
        beams = op.Squeeze(op.NonZero(several), self._zero)
        place = op.Sub(op.CumSum(op.Cast(several, to=ir.DataType.INT64), self._axis), self._one)
        return _Choices(
            op.Gather(parents, beams),
            op.Gather(children.nodes, blocks),
            op.Gather(children.places, blocks),
            op.Gather(place, op.Gather(children.owners, blocks)),
        )

    def _log_probs(self, query: ir.Value, children: _Children, choices: _Choices) -> ir.Value:
        """[R, BLOCK], normalised over all children of the same parent; -inf where none is."""
        op, tree = self._op, self._tree
        asked = op.Gather(op.Unsqueeze(query, self._two), choices.owners)
        products = op.MatMul(op.Gather(tree["vectors"], choices.nodes), asked)
        logits = op.Squeeze(products, self._two)
        logits = op.Add(logits, op.Gather(tree["biases"], choices.nodes))
        # Whatever number an only child has, its share is 1.
        nought = self._constant("nought", np.array([0], dtype=np.float32))
        alone = op.Expand(nought, op.Shape(children.exist))
        rows = op.Where(children.exist, op.ScatterND(alone, choices.places, logits), self._never)
        rows = op.Reshape(rows, self._constant("rows", [0, -1]))
        blocks = op.Reshape(op.LogSoftmax(rows, axis=-1), self._constant("back", [0, -1, BLOCK]))
        log_probs: ir.Value = op.GatherND(blocks, children.places)
        return log_probs

    def _best(self, scores: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The W best of `scores` [n] with their places, and the best one left behind.

        A spare place stands for no child: any number does, its score is -inf.
        """
        op = self._op
        candidates = op.Concat(scores, self._spare, axis=0)
        best, index = op.TopK(candidates, self._candidates, _outputs=2)
        totals, pruned = op.Split(best, self._kept_and_next, axis=0, _outputs=2)
        index, _ = op.Split(index, self._kept_and_next, axis=0, _outputs=2)
        last = op.Sub(op.Shape(scores), self._one)
        return totals, op.Min(index, last), pruned

    def _finish(self, reached: Sequence[_Prefixes]) -> None:
        op, last = self._op, reached[-1]
        missing = op.Unsqueeze(op.Equal(last.totals, self._never), self._one)
        steps = op.Where(missing, self._never, last.steps)
        pruned = op.Concat(*[beams.pruned for beams in reached], axis=0)
        for name, value in (("leaves", last.nodes), ("log_probs", steps), ("pruned", pruned)):
            value.name = name
            value.dtype = ir.DataType.INT64 if name == "leaves" else ir.DataType.FLOAT
            self.graph.outputs.append(value)

    def _constant(self, name: str, numbers: AnyArray | list[int]) -> ir.Value:
        known = self.graph.initializers.get(name)
        if known is not None:
            return known
        array = np.ascontiguousarray(numbers) if np.ndim(numbers) else np.asarray(numbers)
        return self._builder.initializer(ir.tensor(array, name=name), name=name)


def _inputs(width: int, levels: int) -> dict[str, ir.Value]:
    kinds: dict[str, tuple[ir.DataType, list[int | str]]] = {
        "h": (ir.DataType.FLOAT, [width]),
        "child_start": (ir.DataType.INT32, ["inner_nodes"]),
        "vectors": (ir.DataType.FLOAT, ["nodes", width]),
        "biases": (ir.DataType.FLOAT, ["nodes"]),
        "hidden": (ir.DataType.FLOAT, ["asked_nodes", 2 * width]),
        "hidden_rows": (ir.DataType.INT32, ["rows"]),
        "alive": (ir.DataType.INT32, ["nodes"]),
        "beams": (ir.DataType.INT64, ["beams"]),
    }
    for depth in range(levels + 1):
        kinds[f"slots_{depth}"] = (ir.DataType.INT64, [f"slots_{depth}"])
    return {
        name: ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        for name, (dtype, shape) in kinds.items()
    }


def _numbers(parameter: Tensor) -> AnyArray:
    numbers: AnyArray = parameter.detach().cpu().numpy()
    return numbers
