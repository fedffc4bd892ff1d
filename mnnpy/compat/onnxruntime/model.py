"""A model as a session needs it: its graph, and what the file says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from mnnpy.compat.onnxruntime.exceptions import (
    Fail,
    InvalidArgument,
    InvalidProtobuf,
    NoSuchFile,
    translated,
)
from mnnpy.compat.onnxruntime.options import GraphOptimizationLevel, SessionOptions
from mnnpy.converter.onnx_file import load_onnx
from mnnpy.converter.onnx_reader import read_graph
from mnnpy.converter.onnx_types import write_type
from mnnpy.converter.pipeline import PASSES, run_passes
from mnnpy.models import is_onnx
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import TensorType, Type
from mnnpy.runtime.model_file import load_model

_IR_OF_OVERRIDABLE_INITIALIZERS = 4
"""From this IR version on, an initialiser that is an input too is a default that feeds replace."""


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output: its type as in ``"tensor(float)"``, its dimensions.

    A named dimension is its name, an unnamed one None; a value of unknown rank has ``[]``.
    """

    name: str
    type: str
    shape: list[int | str | None]
    ranked: bool = field(default=True, repr=False)
    """Whether ``shape`` is known at all."""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model file says of itself."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model.

    Parameters
    ----------
    proto : the ONNX model, kept where feeds may replace initialisers.
    """

    graph: Graph
    inputs: Sequence[NodeArg]
    outputs: Sequence[NodeArg]
    overridable: Sequence[NodeArg]
    meta: ModelMetadata
    optimized: bool
    proto: onnx.ModelProto | None

    @translated()
    def graph_fed(self, names: frozenset[str]) -> Graph:
        """The graph that takes these overridable initialisers as inputs."""
        if not names or self.proto is None:
            return self.graph
        without = onnx.ModelProto()
        without.CopyFrom(self.proto)
        kept = [tensor for tensor in self.proto.graph.initializer if tensor.name not in names]
        del without.graph.initializer[:]
        without.graph.initializer.extend(kept)
        return _converted(without, self.optimized)


@translated()
def open_model(source: str | bytes, options: SessionOptions) -> Model:
    """Load and convert a model: the path or the bytes of ONNX or of a ``.mnnpy`` file.

    Raises
    ------
    NoSuchFile, InvalidProtobuf, InvalidArgument, InvalidGraph, NotImplemented, Fail
        Where there is no file, no ONNX in it, no model in that, or none that can run.
    """
    if isinstance(source, str) and not Path(source).exists():
        raise NoSuchFile(f"there is no file {source!r}")
    if not source:
        raise InvalidArgument("the model has no bytes")
    if not is_onnx(source):
        return _from_graph(source)
    proto = _parsed(source)
    _fix_dims(proto.graph, options._fixed_dims, options._fixed_denotations)
    _set_initializers(proto.graph, options)
    optimized = options.graph_optimization_level != GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = _converted(proto, optimized)
    defaults = {tensor.name for tensor in proto.graph.initializer}
    overridable = _overridable(proto, defaults)
    return Model(
        graph,
        [_declared(value) for value in proto.graph.input if value.name not in defaults],
        _outputs(proto, graph),
        overridable,
        _metadata(proto),
        optimized,
        proto if overridable else None,
    )


def _parsed(source: str | bytes) -> onnx.ModelProto:
    try:
        return load_onnx(source)
    except InvalidModelError as error:
        unreadable = error.__cause__ is not None or Path(str(source)).is_dir()
        raise (InvalidProtobuf if unreadable else Fail)(str(error)) from error


def _converted(proto: onnx.ModelProto, optimized: bool) -> Graph:
    return run_passes(read_graph(proto), PASSES if optimized else ())


def _from_graph(source: str | bytes) -> Model:
    """A model in mnnpy's own format, which keeps no names of dimensions of outputs."""
    graph = load_model(source)
    values = infer_values(graph)
    return Model(
        graph,
        [_as_arg(name, declared) for name, declared in graph.inputs.items()],
        [_as_arg(name, values[name].type) for name in graph.outputs],
        (),
        ModelMetadata(graph_name=graph.name, custom_metadata_map=dict(graph.metadata)),
        optimized=True,
        proto=None,
    )


def _fix_dims(
    graph: onnx.GraphProto, names: Mapping[str, int], denotations: Mapping[str, int]
) -> None:
    """Write numbers where dimensions of inputs and outputs have one of these names."""
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            size = names.get(dim.dim_param, denotations.get(dim.denotation))
            if size is not None and not dim.HasField("dim_value"):
                dim.dim_value = size


def _set_initializers(graph: onnx.GraphProto, options: SessionOptions) -> None:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name, value in options._initializers.items():
        if name not in tensors:
            raise InvalidArgument(f"the model has no initialiser {name!r} to replace")
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(value.numpy(), name))


def _overridable(proto: onnx.ModelProto, defaults: set[str]) -> list[NodeArg]:
    if proto.ir_version < _IR_OF_OVERRIDABLE_INITIALIZERS:
        return []
    return [_declared(value) for value in proto.graph.input if value.name in defaults]


def _metadata(proto: onnx.ModelProto) -> ModelMetadata:
    return ModelMetadata(
        producer_name=proto.producer_name,
        graph_name=proto.graph.name,
        domain=proto.domain,
        description=proto.doc_string,
        graph_description=proto.graph.doc_string,
        version=proto.model_version,
        custom_metadata_map={entry.key: entry.value for entry in proto.metadata_props},
    )


def _outputs(proto: onnx.ModelProto, graph: Graph) -> list[NodeArg]:
    """Outputs as declared; where that leaves a dimension open, as inference has it."""
    names = {
        dim.dim_param
        for value in proto.graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    values = infer_values(graph)
    found = []
    for value in proto.graph.output:
        declared, inferred = _declared(value), _as_arg(value.name, values[value.name].type, names)
        found.append(_merged(declared, inferred))
    return found


def _merged(declared: NodeArg, inferred: NodeArg) -> NodeArg:
    """ONNX's merging of shapes: numbers over names over nothing."""
    if not declared.ranked and declared.type in ("", inferred.type):
        return inferred
    if not inferred.ranked or len(inferred.shape) != len(declared.shape):
        return declared
    shape = [
        here if isinstance(here, int) else there if isinstance(there, int) else here or there
        for here, there in zip(declared.shape, inferred.shape, strict=True)
    ]
    return NodeArg(declared.name, declared.type, shape)


def _declared(value: onnx.ValueInfoProto) -> NodeArg:
    return _from_proto(value.name, value.type)


def _from_proto(name: str, proto: onnx.TypeProto) -> NodeArg:
    tensor = proto.tensor_type
    if not proto.HasField("tensor_type") or not tensor.HasField("shape"):
        return NodeArg(name, type_text(proto), [], ranked=False)
    shape = [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
        for dim in tensor.shape.dim
    ]
    return NodeArg(name, type_text(proto), shape)


def _as_arg(name: str, known: Type | None, names: set[str] | None = None) -> NodeArg:
    """An inferred type; of its dimensions those that are numbers or have one of these names."""
    proto = write_type(known)
    arg = _from_proto(name, onnx.TypeProto() if proto is None else proto)
    if names is None or not isinstance(known, TensorType):
        return arg
    shape = [str(dim) if isinstance(dim, SymbolicDim) else dim for dim in known.shape]
    return NodeArg(name, arg.type, [d if isinstance(d, int) or d in names else None for d in shape])


def type_text(proto: onnx.TypeProto) -> str:
    """``"tensor(float)"``, ``"seq(tensor(int64))"``, ...; empty where the type is not known."""
    match proto.WhichOneof("value"):
        case "tensor_type":
            return f"tensor({_element_text(proto.tensor_type.elem_type)})"
        case "sparse_tensor_type":
            return f"sparse_tensor({_element_text(proto.sparse_tensor_type.elem_type)})"
        case "sequence_type":
            return f"seq({type_text(proto.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({type_text(proto.optional_type.elem_type)})"
        case "map_type":
            key = _element_text(proto.map_type.key_type)
            return f"map({key},{type_text(proto.map_type.value_type)})"
        case _:
            return ""


def _element_text(number: int) -> str:
    return str(onnx.TensorProto.DataType.Name(number)).lower()
