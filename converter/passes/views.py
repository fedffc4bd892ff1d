"""Operators that give the same elements under another shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnnpy.runtime.graph.dims import Shape
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.rewrite import Patch, Subject
from mnnpy.runtime.ops.elementwise import AlignAxes
from mnnpy.runtime.ops.shaping import Flatten, Reshape, Squeeze, Unsqueeze

VIEWS = (Reshape, Flatten, Squeeze, Unsqueeze, AlignAxes)


def reshape_target(source: Shape, target: Shape) -> NDArray[Any] | None:
    """What to tell Reshape so that ``source`` becomes ``target`` whatever the symbols stand for.

    None where 0 (copy the dimension) and -1 (what is left) cannot say it. What is left is not
    defined beside a dimension that may be zero, so -1 is used beside numbers only.
    """
    dims: list[int] = []
    for axis, dim in enumerate(target):
        copied = axis < len(source) and dim == source[axis]
        if isinstance(dim, int):
            if dim == 0 and not copied:
                return None
            dims.append(dim)
        else:
            dims.append(0 if copied else -1)
    holes = dims.count(-1)
    if holes > 1 or (holes and 0 in dims):
        return None
    return np.array(dims, dtype=np.int64)


def reshaped_to(
    subject: Subject, remove: tuple[Node, ...], source: str, target: Shape
) -> Patch | None:
    """Patch that puts a Reshape of ``source`` in the place of nodes, the last of which counts."""
    found = subject.tensor(source)
    dims = None if found is None else reshape_target(found.shape, target)
    if dims is None:
        return None
    last = remove[-1]
    name = subject.fresh(f"{last.outputs[0]}.shape")
    new = Node(last.name, Reshape(), (source, name), last.outputs)
    return Patch(remove, (new,), {name: dims})
