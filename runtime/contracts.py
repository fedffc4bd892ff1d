"""What the runtime's neighbours provide: schemes, kernels, backends, and the data between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeAlias

from mnnpy.runtime.errors import BackendError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value

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


TileRates: TypeAlias = tuple[tuple[int, int, float], ...]
"""(rows, vectors, multiply-adds per second) of tiles of sums of products that lie in registers, for
every number of vectors from one on: the lowest tile, the tallest, and some between."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory.

    Parameters
    ----------
    kind : ``"plain"`` (row-major, ONNX's axis order), ``"channels_last"`` or ``"blocked"``.
    block : channels per block of a blocked layout.
    halo : border of ``fill`` around each spatial axis, written by the producer on every run.
    """

    kind: str = "plain"
    block: int = 1
    halo: int = 0
    fill: float = 0.0

    def physical_shape(self, tensor: TensorType) -> tuple[int, ...]:
        """Shape of the memory that holds a tensor of static shape."""
        shape = tuple(int(dim) for dim in tensor.shape)
        spatial = tuple(dim + 2 * self.halo for dim in shape[2:])
        if self.kind == "plain":
            return (*shape[:2], *spatial)
        if self.kind == "channels_last":
            return (shape[0], *spatial, shape[1])
        return (shape[0], -(-shape[1] // self.block), *spatial, self.block)

    def matches(self, other: Layout) -> bool:
        """Whether both differ at most in the width of a blocked layout's halo.

        Producers of blocked tensors write the halo that their readers need, so that such layouts
        need no conversion.
        """
        if self.kind == other.kind == "blocked":
            return (self.block, self.fill) == (other.block, other.fill)
        return self == other

    def nbytes(self, tensor: TensorType) -> int:
        return math.prod(self.physical_shape(tensor)) * tensor.dtype.itemsize

    def __str__(self) -> str:
        name = f"c{self.block}" if self.kind == "blocked" else self.kind
        return f"{name}+{self.halo}" if self.halo else name


PLAIN = Layout()


@dataclass(frozen=True, slots=True)
class Work:
    """What an algorithm does: multiply-adds, bytes moved, calls or launches, and bytes of its own
    that threads write for each other.
    """

    macs: int = 0
    nbytes: int = 0
    launches: int = 1
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Linear cost of one scheme on one device: what its Work costs in seconds."""

    seconds_per_mac: float
    seconds_per_byte: float
    seconds_per_launch: float

    def seconds(self, work: Work) -> float:
        return (
            work.macs * self.seconds_per_mac
            + work.nbytes * self.seconds_per_byte
            + work.launches * self.seconds_per_launch
        )


@dataclass(frozen=True, slots=True)
class Device:
    """A machine as data: planning needs this, never a live backend.

    Parameters
    ----------
    memory : the address space; backends with equal names share buffers without copies.
    coefficients : scheme name -> measured cost; ``"*"`` serves schemes that were not measured.
        ``"far"`` says what bytes cost more that steps hand on past the caches, ``"passed"`` those
        that threads write for each other within a step.
    grain_nbytes : how much output to finish before the next pass: what stays in a near cache.
    cache_nbytes : what the caches keep from one step to the next; None where it is not known.
    efficiency : what each thread after the first adds to a step, in threads.
    seconds_per_wait : of several threads for each other behind every step.
    tile_rates : how fast tiles of products run; empty where nobody timed them.
    """

    kind: str
    name: str
    memory: str
    features: tuple[str, ...] = ()
    threads: int = 1
    memory_nbytes: int | None = None
    grain_nbytes: int = 1 << 62
    cache_nbytes: int | None = None
    efficiency: float = 0.0
    seconds_per_wait: float = 0.0
    coefficients: Mapping[str, Coefficients] = field(default_factory=dict)
    tile_rates: TileRates = ()

    def seconds(self, scheme: str, work: Work, handed_nbytes: int = 0) -> float:
        """Predicted time of a scheme's work on all threads.

        Parameters
        ----------
        handed_nbytes : size of the tensors that other steps have written or will read.
        """
        found = self.coefficients.get(scheme) or self.coefficients.get("*")
        if found is None:
            raise BackendError(f"{self.name!r} has coefficients for neither {scheme!r} nor '*'")
        alone = found.seconds(work) + self._far_seconds(handed_nbytes)
        return self.spread(alone, work.launches) + self._passing_seconds(work.passed)

    def spread(self, seconds: float, launches: int) -> float:
        """What takes one thread so long, on all threads."""
        gain = 1 + (self.threads - 1) * self.efficiency
        return seconds / gain + (self.seconds_per_wait if gain > 1 and launches else 0)

    def _passing_seconds(self, nbytes: int) -> float:
        """What each thread waits for lines of others' caches."""
        passed = self.coefficients.get("passed")
        others = (self.threads - 1) / self.threads
        return passed.seconds(Work(0, nbytes, 0)) * others if passed and nbytes else 0.0

    def _far_seconds(self, handed_nbytes: int) -> float:
        far = self.coefficients.get("far")
        if far is None or self.cache_nbytes is None:
            return 0.0
        return far.seconds(Work(0, max(0, handed_nbytes - self.cache_nbytes), 0))

    def limited(self, threads: int | None, lanes: int = 1) -> Device:
        """The device as one of ``lanes`` runs side by side has it, on that many threads at most."""
        most = self.threads if threads is None else min(self.threads, threads)
        cache = None if self.cache_nbytes is None else self.cache_nbytes // lanes
        return replace(self, threads=most, cache_nbytes=cache)


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
