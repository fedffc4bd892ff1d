"""Operators of a user's own: two functions under a domain and a name.

::

    operators = OperatorLibrary()
    operators.register_operator("com.example", "Squareplus", infer=..., reference=...)
    convert("model.onnx", "model.mnnpy", operators=operators)
    session = Session("model.mnnpy", operators=operators)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, TypeAlias, cast

from mnnpy.runtime.errors import ConfigError, ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op, operator_kind
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value, type_of
from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.ops.numeric import on_host

Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""What an attribute of a user's operator may be: what a model file can hold."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a user says of an operator; see :meth:`OperatorLibrary.register_operator`."""

    domain: str
    name: str
    infer: Callable[..., Any]
    reference: Callable[..., Any]
    since_version: int = 1
    shape_inputs: tuple[int, ...] = ()
    host_only: bool = False


@dataclass(frozen=True, slots=True)
class UserOperator(Op):
    """Base of users' operators; :func:`operator_class` makes one class per definition."""

    attributes: tuple[tuple[str, Attribute], ...] = ()
    definition: ClassVar[Definition]

    def infer(self, *inputs: Value | None) -> tuple[Type, ...]:
        return _several(self.definition.infer(*inputs, **dict(self.attributes)))

    def reference(self, xp: ArrayModule, *inputs: Array | None) -> tuple[Array, ...]:
        outputs = _several(self.definition.reference(xp, *inputs, **dict(self.attributes)))
        declared = self.infer(*map(self._value, range(len(inputs)), inputs))
        for place, (array, wanted) in enumerate(zip(outputs, declared, strict=False)):
            if not _fits(type_of(array), wanted):
                raise ShapeError(
                    f"{self.kind}: its reference gives {type_of(array)} as output {place}, "
                    f"its infer says {wanted}"
                )
        if len(outputs) != len(declared):
            raise ShapeError(
                f"{self.kind}: its reference gives {len(outputs)} outputs, "
                f"its infer {len(declared)}"
            )
        return outputs

    def _value(self, place: int, content: Array | None) -> Value | None:
        if content is None:
            return None
        known = on_host(content) if place in self.shape_inputs else None
        return Value(type_of(content), known)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.definition, self.attributes)


@cache
def operator_class(definition: Definition) -> type[UserOperator]:
    """The class of a definition; equal definitions have the same."""
    since = definition.since_version
    name = definition.name if since == 1 else f"{definition.name}-{since}"
    facts = {
        "__slots__": (),
        "__doc__": definition.reference.__doc__,
        "__qualname__": f"{definition.domain}.{name}".lstrip("."),
        "domain": definition.domain,
        "definition": definition,
        "shape_inputs": definition.shape_inputs,
        "host_only": definition.host_only,
    }
    return cast(type[UserOperator], type(name, (UserOperator,), facts))


class OperatorLibrary:
    """Operators of a user's own, for whatever the library is handed to, and nothing else.

    ``convert``, ``load_model`` and ``Session`` take it as ``operators``. A model file names the
    operators and does not hold their code: loading it takes the library again.
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[UserOperator]] = {}

    def register_operator(
        self,
        domain: str,
        name: str,
        *,
        infer: Callable[..., Any],
        reference: Callable[..., Any],
        since_version: int = 1,
        shape_inputs: tuple[int, ...] = (),
        host_only: bool = False,
    ) -> None:
        """Add an operator, which wins over one of that domain and name that mnnpy can import.

        Parameters
        ----------
        infer : takes a ``Value`` per input, None where an optional one is absent, and the
            attributes by name; returns the type of the output, or a tuple of types.
        reference : takes the array module, an array per input, and the attributes by name;
            returns an array, or a tuple, of the types that ``infer`` says.
        since_version : the first version of the domain in which it means this; register every
            version whose meaning differs.
        shape_inputs : positions of inputs whose content, not only whose type, decides the types.
        host_only : the reference needs NumPy's arrays, whatever the backend.

        Raises
        ------
        ConfigError
            Where it is registered twice, or mnnpy has an operator of this name itself.
        """
        if not name or not callable(infer) or not callable(reference) or since_version < 1:
            raise ConfigError(
                f"operator {name!r} of domain {domain!r}, since version {since_version}: it needs "
                "a name, two functions and a version of at least 1"
            )
        definition = Definition(
            domain, name, infer, reference, since_version, tuple(shape_inputs), host_only
        )
        made = operator_class(definition)
        kind = operator_kind(made)
        if kind in OPERATORS:
            raise ConfigError(f"mnnpy has an operator {kind!r} itself: choose another domain")
        if kind in self._classes:
            raise ConfigError(f"operator {kind!r} is registered already")
        self._classes[kind] = made

    @property
    def classes(self) -> Mapping[str, type[UserOperator]]:
        """The operators by kind."""
        return dict(self._classes)

    def find(self, domain: str, name: str, version: int) -> type[UserOperator] | None:
        """The operator that a node means in a model of this version of the domain."""
        known = [
            made
            for made in self._classes.values()
            if (made.definition.domain, made.definition.name) == (domain, name)
            and made.definition.since_version <= version
        ]
        return max(known, key=lambda made: made.definition.since_version, default=None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _library, tuple(made.definition for made in self._classes.values())


def user_operators(graph: Graph) -> dict[str, type[Op]]:
    """Users' operators in a graph and in its nodes' graphs, by kind."""
    found: dict[str, type[Op]] = {}
    for node in graph.nodes:
        if isinstance(node.op, UserOperator):
            found[node.op.kind] = type(node.op)
        for entry in fields(node.op):
            if isinstance(body := getattr(node.op, entry.name), Graph):
                found |= user_operators(body)
    return found


def _library(*definitions: Definition) -> OperatorLibrary:
    library = OperatorLibrary()
    for definition in definitions:
        given = {entry.name: getattr(definition, entry.name) for entry in fields(definition)}
        library.register_operator(**given)
    return library


def _restored(
    definition: Definition, attributes: tuple[tuple[str, Attribute], ...]
) -> UserOperator:
    return operator_class(definition)(attributes)


def _several(results: Any) -> tuple[Any, ...]:
    """One result, or a tuple of them, as a tuple; a list is one sequence."""
    return results if isinstance(results, tuple) else (results,)


def _fits(found: Type, declared: Type) -> bool:
    """Whether a tensor is of the declared type, as far as that says; others are not compared."""
    if not isinstance(found, TensorType) or not isinstance(declared, TensorType):
        return True
    return (
        found.dtype == declared.dtype
        and found.rank == declared.rank
        and not any(map(differ, found.shape, declared.shape))
    )
