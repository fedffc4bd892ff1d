"""Write an Einsum of two tensors as a product of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mnnpy.converter.passes.views import reshape_target
from mnnpy.runtime.graph.dims import Dim, Shape
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.einsum import Einsum
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.shape_math import product
from mnnpy.runtime.ops.shaping import Reshape, Transpose

Labels: TypeAlias = tuple[str, ...]
Axes: TypeAlias = tuple[Labels, ...]
"""Axes of a stack of matrices, each of which may be several labels."""


def expand_einsum(graph: Graph) -> Graph:
    """Einsum that sums over labels of both factors and keeps all others: MatMul, with Transpose
    and Reshape of factors and result where they are needed.
    """
    return apply_rules(graph, _expand)


@dataclass(frozen=True, slots=True)
class _Product:
    """Factors as (name, labels), and the axes of the matrices that they and the result are."""

    factors: tuple[tuple[str, Labels], tuple[str, Labels]]
    left: Axes
    right: Axes
    result: Axes
    sizes: Mapping[str, Dim]

    def apart(self, axes: Axes) -> Shape:
        """Sizes with an axis for every label."""
        return tuple(self.sizes[label] for labels in axes for label in labels)

    def together(self, axes: Axes) -> Shape:
        return tuple(product(self.sizes[label] for label in labels) for labels in axes)


def _expand(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, Einsum) or len(node.inputs) != 2:
        return None
    shapes = [x.shape for name in node.reads if (x := subject.tensor(name)) is not None]
    if len(shapes) != 2:
        return None
    terms, output = node.op.terms([len(shape) for shape in shapes])
    found = _read(node.reads, terms, shapes, output)
    if found is None:
        return None
    writer = _Writer(subject, node.outputs[0])
    matrices = []
    for (name, labels), axes in zip(found.factors, (found.left, found.right), strict=True):
        name = writer.permute(name, labels, _flat(axes))
        matrices.append(writer.view(name, found.apart(axes), found.together(axes)))
    y = writer.write(MatMul(), *matrices)
    y = writer.view(y, found.together(found.result), found.apart(found.result))
    writer.permute(y, _flat(found.result), output)
    *before, last = writer.nodes
    nodes = (*before, replace(last, name=node.name, outputs=node.outputs))
    return Patch((node,), nodes, writer.constants)


def _read(
    names: Sequence[str], terms: Sequence[Labels], shapes: Sequence[Shape], output: Labels
) -> _Product | None:
    """What an Einsum multiplies; None where it is no product of matrices."""
    left, right = (dict(zip(*pair, strict=True)) for pair in zip(terms, shapes, strict=True))
    shared = tuple(label for label in terms[0] if label in right)
    summed = tuple(label for label in shared if label not in output)
    kept = {*left, *right} <= {*summed, *output}
    doubled = any(len(set(labels)) < len(labels) for labels in terms)
    if doubled or not kept or not summed or any(left[label] != right[label] for label in shared):
        return None
    batch = tuple((label,) for label in output if label in shared)
    rows, columns = (
        tuple(label for label in output if label in sizes and label not in shared)
        for sizes in (left, right)
    )
    factors = list(zip(names, terms, strict=True))
    if rows and output == (*_flat(batch), *columns, *rows):
        factors, rows, columns = factors[::-1], columns, rows
    # Without a batch the second factor serves a stack of any shape.
    of_rows = (*batch, rows) if batch or not rows else tuple((label,) for label in rows)
    axes = (*of_rows, summed), (*batch, summed, columns), (*of_rows, columns)
    found = _Product((factors[0], factors[1]), *axes, left | right)
    changes = [(found.apart(a), found.together(a)) for a in axes]
    changes[2] = changes[2][::-1]
    return None if any(reshape_target(*change) is None for change in changes) else found


def _flat(axes: Axes) -> Labels:
    return tuple(label for labels in axes for label in labels)


@dataclass(slots=True)
class _Writer:
    """Nodes that take the place of one, in order."""

    subject: Subject
    stem: str
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def write(self, op: Op, *inputs: str) -> str:
        name = self.subject.fresh(f"{self.stem}.part{len(self.nodes)}")
        self.nodes.append(Node(name, op, inputs, (name,)))
        return name

    def permute(self, name: str, labels: Labels, wanted: Labels) -> str:
        order = tuple(labels.index(label) for label in wanted)
        return name if labels == wanted else self.write(Transpose(order), name)

    def view(self, name: str, source: Shape, target: Shape) -> str:
        dims = reshape_target(source, target)
        if source == target or dims is None:
            return name
        constant = self.subject.fresh(f"{self.stem}.shape{len(self.nodes)}")
        self.constants[constant] = dims
        return self.write(Reshape(), name, constant)
