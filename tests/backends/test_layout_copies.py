"""Copies between every two layouts of the native kernels, halos included."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mnnpy.backends import host_memory
from mnnpy.backends.numba_cpu.blocked import blocked
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.layout_copy import LayoutCopy
from mnnpy.runtime.contracts import Buffers, Task
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.fused import Copy
from tests.backends.test_kernels import fetched, placed

LANES = host_jit().cpu.lanes
LAYOUTS = (PLAIN, Layout(halo=3), blocked(LANES), blocked(LANES, 1), blocked(LANES, 3))


@pytest.mark.parametrize("spatial", [(5, 7), (7,), (3, 2, 19)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, LANES, LANES + 1, 2 * LANES + 3])
@pytest.mark.parametrize(("given", "wanted"), list(permutations(LAYOUTS, 2)), ids=str)
def test_every_pair(given: Layout, wanted: Layout, channels: int, spatial: tuple[int, ...]) -> None:
    rng = np.random.default_rng(channels)
    array = rng.standard_normal((2, channels, *spatial)).astype(np.float32)
    tensor = type_of(array)
    source = placed(array, given)
    shape = wanted.physical_shape(tensor)
    memory = host_memory.aligned_bytes(wanted.nbytes(tensor))
    memory[...] = 0xFF
    target = host_memory.array_view(memory, 0, shape, array.dtype)
    task = Task(Copy(), (Value(tensor),), (tensor,))
    LayoutCopy(host_jit()).bind(task, (), Buffers((source,), (target,), memory[:0]))()
    np.testing.assert_array_equal(fetched(target, tensor, wanted), array)
