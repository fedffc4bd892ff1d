"""What the runtime's neighbours provide: schemes, kernels, backends, and the data between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.layouts import Layout

Run: TypeAlias = Callable[[], None]
"""Bound work: everything decided, every buffer known."""


class BorrowingRun(Protocol):
    """Bound work whose plain inputs and outputs may lie elsewhere on every run."""

    def __call__(self) -> None: ...

    def mover(self, bound: Array) -> Callable[[Array], None]:
        """What makes the work use another array of the same shape in place of ``bound``."""
        ...


Config: TypeAlias = tuple[tuple[str, int | str], ...]
"""A kernel's parameters (tile, split, ...) as sorted pairs: hashable and JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """An operator (or fused region) with all that is known of its inputs and outputs."""

    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Type, ...]

    @staticmethod
    def of(node: Node, values: Mapping[str, Value]) -> Task:
        """The task of a node whose outputs' types are known."""
        types = tuple(t for name in node.outputs if (t := values[name].type) is not None)
        return Task(node.op, tuple(None if n is None else values[n] for n in node.inputs), types)

    def tensor(self, index: int) -> TensorType:
        """Type of a tensor input that is present."""
        value = self.inputs[index]
        assert value is not None
        return value.tensor

    def output(self, index: int = 0) -> TensorType:
        """Type of a tensor output."""
        inferred = self.outputs[index]
        assert isinstance(inferred, TensorType)
        return inferred

    def known(self, index: int) -> Array | None:
        """Content of an input that is constant, else None."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return value.known if value is not None and value.constant else None

    @property
    def macs(self) -> int:
        return self.op.macs(self.inputs, self.outputs)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors read and written once."""
        return _nbytes((*(v.type for v in self.inputs if v is not None), *self.outputs))

    @property
    def handed_nbytes(self) -> int:
        """Bytes of the tensors that steps hand on to each other: all but constants."""
        read = (v.type for v in self.inputs if v is not None and not v.constant)
        return _nbytes((*read, *self.outputs))


def _nbytes(types: Iterable[Type | None]) -> int:
    return sum(t.nbytes for t in types if isinstance(t, TensorType) and t.static)


@dataclass(frozen=True, slots=True)
class Buffers:
    """Arrays that a kernel is bound to, in their physical layouts.

    Parameters
    ----------
    inputs : None where absent or replaced by ``packed``.
    workspace : bytes that belong to the step while it runs.
    packed : what the kernel's ``pack`` returned.
    aliased : inputs that already lie in the outputs' memory.
    finish : index into output 0 -> work that completes that part in place (bias, activation).
    """

    inputs: tuple[Array | None, ...]
    outputs: tuple[Array, ...]
    workspace: Array
    packed: tuple[Array, ...] = ()
    aliased: frozenset[int] = frozenset()
    finish: Callable[[tuple[Any, ...]], Run | None] = lambda index: None


class Scheme:
    """Facts of an algorithm, no device: where it applies, what it costs in work, how it computes.

    A scheme of a convolution or matrix product computes the bare product: bias and epilogue come
    through ``buffers.finish`` for every part of output 0 that it completes.
    """

    name: ClassVar[str]
    operators: ClassVar[tuple[type[Op], ...]]
    last_resort: ClassVar[bool] = False
    """True where any other scheme is to be preferred, whatever the predictions say."""

    finishes: ClassVar[bool] = False
    """Whether ``bind`` calls ``buffers.finish``, so that the scheme can carry an epilogue."""

    def reject(self, task: Task) -> str | None:
        """Why the scheme cannot compute this task, in words; None where it can."""
        return None

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        """Parameters worth trying, at least one.

        ``grain_nbytes`` is how much the device likes to finish before the next pass: what stays in
        a near cache.
        """
        return ((),)

    def work(self, task: Task, config: Config) -> Work:
        return Work(task.macs, task.nbytes)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        return 0

    def max_error(self, task: Task, config: Config) -> float:
        """Error relative to the largest output, beyond what summing in another order gives."""
        return 0.0

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        """Constant inputs that ``pack`` replaces."""
        return ()

    def pack(self, xp: ArrayModule, task: Task, config: Config) -> tuple[Array, ...]:
        """Constant inputs in the form that ``bind`` reads.

        Computed once per session, for all plans: it may depend on the operator, the config and
        these constants, and not on the shapes of other inputs.
        """
        return ()

    def inplace(self, task: Task) -> tuple[int, ...]:
        """Inputs whose memory output 0 may take over."""
        return ()

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        """Work on these buffers, with every view made ahead."""
        raise NotImplementedError(self.name)


class Kernel(Protocol):
    """One way in which a backend runs an operator or region."""

    @property
    def scheme(self) -> str: ...

    @property
    def last_resort(self) -> bool: ...

    @property
    def borrows(self) -> bool:
        """Whether ``bind`` gives a :class:`BorrowingRun`."""
        ...

    def reject(self, task: Task, device: Device) -> str | None: ...

    def configs(self, task: Task, device: Device) -> Sequence[Config]: ...

    def layouts(
        self, task: Task, config: Config
    ) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]: ...

    def work(self, task: Task, config: Config) -> Work: ...

    def workspace_nbytes(self, task: Task, config: Config) -> int: ...

    def max_error(self, task: Task, config: Config) -> float: ...

    def inplace(self, task: Task) -> tuple[int, ...]: ...

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]: ...

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]: ...

    def packing_config(self, config: Config) -> Config:
        """The entries of a config that ``pack`` depends on."""
        ...

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run: ...


@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate costs: predicted from Work, or measured."""

    seconds: float
    workspace_nbytes: int = 0
    max_error: float = 0.0
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that was not chosen: the reason why it cannot run, or what it would cost."""

    backend: str
    scheme: str
    config: Config
    reason: str | None
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Choice:
    """How one step runs. Equality ignores costs and rejections: they explain, not decide."""

    backend: str
    scheme: str
    config: Config
    input_layouts: tuple[Layout, ...]
    output_layouts: tuple[Layout, ...]
    cost: Cost = field(compare=False)
    rejected: tuple[Rejected, ...] = field(compare=False, default=())


@dataclass(frozen=True, slots=True, eq=False)
class BoundStep:
    """A step as a backend binds it: the node, its task, how it runs, and on which arrays."""

    node: Node
    task: Task
    choice: Choice
    kernel: Kernel
    buffers: Buffers


class Backend(Protocol):
    """A way to run kernels on a device."""

    @property
    def name(self) -> str: ...

    def check(self) -> str | None:
        """Why the backend cannot be used here; None where it can."""
        ...

    def describe(self) -> Device:
        """The machine at hand as data, with fitted coefficients."""
        ...

    @property
    def schemes(self) -> frozenset[str]:
        """Names of all schemes that ``kernels`` may offer; known without a device."""
        ...

    def kernels(self, op: Op) -> Sequence[Kernel]:
        """Every way to run an operator or region here."""
        ...

    def regions(self, graph: Graph, values: Mapping[str, Value]) -> Iterable[tuple[Node, ...]]:
        """Connected sets of nodes for which this backend has one kernel."""
        ...

    def allocate(self, nbytes: int) -> Array:
        """A byte array of this device's memory."""
        ...

    def upload(self, array: Array) -> Array:
        """A constant in this device's memory (the same array where that is host memory)."""
        ...

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array over part of an arena."""
        ...

    def copy(self, source: Array, target: Array) -> None:
        """Copy between arrays of equal shape; either may be on this device or on the host."""
        ...

    def to_host(self, array: Array) -> Array:
        """The array itself where it is in host memory, else a copy there."""
        ...

    def bind(self, steps: Iterable[BoundStep], threads: int | None) -> Program:
        """Compile or capture steps that run one after another; each is packed as it is taken."""
        ...

    def running(self, threads: int | None) -> AbstractContextManager[object]:
        """Around every run: thread limits, the current device."""
        ...


class Program(Protocol):
    """A bound run of steps: calling it does all of them."""

    def expect(self) -> None:
        """Told that a call is about to come: wakes what sleeps."""
        ...

    def __call__(self) -> None: ...

    @property
    def steps(self) -> Sequence[Run]:
        """The same work step by step, each finished on return: for profiling and callbacks."""
        ...
