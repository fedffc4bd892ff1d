"""Inference of values: every type in a graph and, where inputs allow, contents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mnnpy.runtime.errors import MnnpyError, ShapeError
from mnnpy.runtime.graph.dims import SymbolicDim, UndecidedError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import Array, TensorType, Type, UnknownType, Value

EVALUATED_ELEMENTS = 1024
"""Contents up to this many elements are evaluated: shape arithmetic and small tables."""


def infer_values(
    graph: Graph,
    inputs: Mapping[str, Value] | None = None,
) -> dict[str, Value]:
    """Type and, where it can be evaluated, content of every value of the graph.

    Parameters
    ----------
    inputs : what is known of graph inputs beyond their declared types (concrete shapes, contents).

    Raises
    ------
    ShapeError
        Where inputs break an operator's rule; names the node and its input types.
    """
    values = {name: _value(declared) for name, declared in graph.inputs.items()}
    values.update((name, name_unknown_dims(name, value)) for name, value in (inputs or {}).items())
    for name, array in graph.constants.items():
        values[name] = Value(TensorType(array.dtype, array.shape), array)
    for node in graph.nodes:
        results = infer_node(node, [None if n is None else values[n] for n in node.inputs])
        for output, result in zip(node.outputs, results, strict=False):
            values[output] = name_unknown_dims(output, result)
    return values


def infer_node(node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """Values of one node's outputs. Raises ``ShapeError`` naming the node."""
    undecided = [Value(None)] * len(node.outputs)
    if any(value is not None and value.type is None for value in inputs):
        return undecided
    try:
        types = node.op.infer(*inputs)
        contents = _evaluate(node, inputs, types)
    except UndecidedError:
        return undecided
    except MnnpyError as error:
        raise ShapeError(f"{node}: {error} (inputs: {_describe(inputs)})") from error
    except Exception as error:
        # Operators check what has a rule; attributes and inputs beyond any rule fail in any way.
        raise ShapeError(
            f"{node}: {len(inputs)} inputs do not fit the operator: "
            f"{type(error).__name__}: {error} (inputs: {_describe(inputs)})"
        ) from error
    if len(types) < len(node.outputs):
        raise ShapeError(
            f"{node}: has {len(node.outputs)} outputs, the operator gives {len(types)}"
        )
    negative = [t for t in types if isinstance(t, TensorType) and _has_negative_size(t)]
    if negative:
        raise ShapeError(
            f"{node}: would give {negative[0]}, of negative size (inputs: {_describe(inputs)})"
        )
    endless = [t for t in types if isinstance(t, TensorType) and _is_beyond_memory(t)]
    if endless:
        raise ShapeError(
            f"{node}: would give {endless[0]}, larger than any memory (inputs: {_describe(inputs)})"
        )
    if contents is None:
        return [_value(inferred) for inferred in types]
    return [_value(inferred, known) for inferred, known in zip(types, contents, strict=False)]


def _value(inferred: Type, known: Array | None = None) -> Value:
    return Value(None if isinstance(inferred, UnknownType) else inferred, known)


def _evaluate(
    node: Node, inputs: Sequence[Value | None], types: Sequence[Type]
) -> Sequence[Array | None] | None:
    from_types = node.op.content(inputs)
    if from_types is not None:
        return from_types
    if not (node.op.deterministic and node.op.bounded and inputs):
        return None
    if any(value is not None and value.known is None for value in inputs):
        return None
    if not all(isinstance(t, TensorType) and t.static and _small(t) for t in types):
        return None
    results = evaluate_known(node, inputs)
    if results is None or all(value is None or value.constant for value in inputs):
        return results
    return _symbolic_contents(results, types)


def evaluate_known(node: Node, inputs: Sequence[Value | None]) -> Sequence[Array] | None:
    """Run the reference on contents that are all known, be they symbolic dimensions.

    None where it fails: it fails again when the node runs, which it may never do (in a branch).
    """
    try:
        with np.errstate(all="ignore"):
            return node.op.reference(np, *(None if v is None else v.known for v in inputs))
    except MnnpyError:
        raise
    except Exception:
        return None


def _symbolic_contents(results: Sequence[Array], types: Sequence[Type]) -> list[Array] | None:
    """Results of arithmetic on symbolic dimensions, where they are dimensions again."""
    contents = []
    for result, inferred in zip(results, types, strict=True):
        dims = np.asarray(result).reshape(-1).tolist()
        if not isinstance(inferred, TensorType) or np.shape(result) != inferred.shape:
            return None
        if not all(isinstance(dim, int | SymbolicDim) for dim in dims):
            return None
        numbers = all(isinstance(dim, int) for dim in dims)
        contents.append(np.asarray(result, dtype=inferred.dtype if numbers else object))
    return contents


def _small(tensor: TensorType) -> bool:
    return tensor.size <= EVALUATED_ELEMENTS


def _has_negative_size(tensor: TensorType) -> bool:
    return any(isinstance(dim, int) and dim < 0 for dim in tensor.shape)


def _is_beyond_memory(tensor: TensorType) -> bool:
    """Whether no array can have such a shape, be it empty: NumPy multiplies the other axes."""
    sizes = (dim for dim in tensor.shape if isinstance(dim, int) and dim)
    return math.prod(sizes) * tensor.dtype.itemsize >= 2**63


def name_unknown_dims(name: str, value: Value) -> Value:
    """Give each unknown dimension a symbol of its own, so that two unknowns never look equal."""
    inferred = value.type
    if not isinstance(inferred, TensorType) or inferred.static:
        return value
    shape = tuple(
        SymbolicDim.named(f"{name}[{axis}]")
        if isinstance(dim, SymbolicDim) and any("?" in symbol for symbol, _ in dim.terms)
        else dim
        for axis, dim in enumerate(inferred.shape)
    )
    return Value(TensorType(inferred.dtype, shape), value.known)


def _describe(inputs: Sequence[Value | None]) -> str:
    return ", ".join("-" if value is None else str(value.type) for value in inputs)
