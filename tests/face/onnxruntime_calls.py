"""Calls that mean the same through ONNX Runtime and through mnnpy's face for it.

Each takes the module, and gives something to compare or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
X = np.ones((2, 4), np.float32)
CPU = "CPUExecutionProvider"


def _model() -> bytes:
    """y = x @ w + b and z = -y; ``b`` is a default that a feed replaces."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["y"]),
            helper.make_node("Neg", ["y"], ["z"]),
        ],
        "affine",
        [value("x", FLOAT, ["n", 4]), value("b", FLOAT, [3])],
        [value("y", FLOAT, None), value("z", FLOAT, ["n", None])],
        [
            numpy_helper.from_array(np.ones((4, 3), np.float32), "w"),
            numpy_helper.from_array(np.ones(3, np.float32), "b"),
        ],
        doc_string="of the graph",
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="tests",
        producer_version="1",
        doc_string="of the model",
        domain="example",
        model_version=7,
    )
    helper.set_model_props(model, {"names": "{0: 'cat'}"})
    return bytes(model.SerializeToString())


MODEL = _model()


def opened(ort: Any, model: Any = MODEL, **options: Any) -> Any:
    """A session on the CPU, with the options that are given by name."""
    chosen = ort.SessionOptions()
    chosen.add_session_config_entry("mnnpy.backend", "numpy")
    for name, value in options.items():
        setattr(chosen, name, value)
    return ort.InferenceSession(model, chosen, providers=[CPU])


def graph_of(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[tuple[str, Any, int]], *outputs: str
) -> bytes:
    """A model; inputs are (name, shape, element type), outputs have no shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, element, shape) for n, shape, element in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


_SYMBOLS = graph_of(
    [
        helper.make_node("Concat", ["x", "x"], ["c"], axis=0),
        helper.make_node("Reshape", ["x", "r"], ["reshaped"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[3, 2, 1, 0]),
    ],
    [("x", ["n", "m", 3, None], FLOAT), ("r", ["k"], TensorProto.INT64), ("s", [], FLOAT)],
    *("c", "reshaped", "t"),
)
_TWO = [("x", ["n", 4], FLOAT), ("c", ["k", 4], FLOAT)]


def _run(names: Any, feeds: Any) -> Callable[[Any], Any]:
    return lambda ort: opened(ort).run(names, feeds)


def _load(model: Any) -> Callable[[Any], Any]:
    return lambda ort: opened(ort, model).get_providers()


def _providers(*arguments: Any, **named: Any) -> Callable[[Any], Any]:
    def call(ort: Any) -> Any:
        options = ort.SessionOptions()
        options.add_session_config_entry("mnnpy.backend", "numpy")
        session = ort.InferenceSession(MODEL, options, *arguments, **named)
        return session.get_providers(), session.get_provider_options()

    return call


def _metadata(ort: Any) -> Any:
    meta = opened(ort).get_modelmeta()
    texts = (meta.producer_name, meta.graph_name, meta.domain, meta.description)
    return *texts, meta.graph_description, meta.version, meta.custom_metadata_map


def _fixed(name: str, size: int, feed: bool = False) -> Callable[[Any], Any]:
    def call(ort: Any) -> Any:
        options = ort.SessionOptions()
        options.add_session_config_entry("mnnpy.backend", "numpy")
        options.add_free_dimension_override_by_name(name, size)
        session = ort.InferenceSession(MODEL, options)
        return (
            session.run(None, {"x": X}) if feed else [session.get_inputs(), session.get_outputs()]
        )

    return call


def _option(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda ort: setattr(ort.SessionOptions(), name, value)


def _defaults(ort: Any) -> Any:
    options, run = ort.SessionOptions(), ort.RunOptions()
    names = [
        name for name in dir(options) if name[0] != "_" and not callable(getattr(options, name))
    ]
    return [(name, repr(getattr(options, name))) for name in names], run.terminate, run.logid


def _terminated(ort: Any) -> Any:
    options = ort.RunOptions()
    options.terminate = True
    return opened(ort).run(None, {"x": X}, options)


def _entries(ort: Any) -> Any:
    options, run = ort.SessionOptions(), ort.RunOptions()
    options.add_session_config_entry("a", "b")
    run.add_run_config_entry("c", "d")
    return options.get_session_config_entry("a"), run.get_run_config_entry("c")


def _value(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What an OrtValue says of itself; ``make`` gets the class."""

    def call(ort: Any) -> Any:
        value = make(ort.OrtValue)
        kind = value.is_tensor(), value.is_sparse_tensor(), value.is_tensor_sequence()
        size = value.shape(), value.element_type(), value.tensor_size_in_bytes()
        return *kind, *size, value.data_type(), value.has_value(), value.device_name()

    return call


def _shared(ort: Any) -> Any:
    array = X.copy()
    value = ort.OrtValue.ortvalue_from_numpy(array)
    array[0, 0] = 5
    return value, np.asarray(value), np.from_dlpack(value), value.data_ptr() == array.ctypes.data


def _updated(new: Any) -> Callable[[Any], Any]:
    def call(ort: Any) -> Any:
        value = ort.OrtValue.ortvalue_from_numpy(X.copy())
        value.update_inplace(new)
        return value

    return call


def _bound(bind: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A bound run; ``bind`` gets the module and the binding, and gives what to compare too."""

    def call(ort: Any) -> Any:
        session = opened(ort)
        binding = session.io_binding()
        binding.bind_cpu_input("x", X)
        kept = bind(ort, binding)
        session.run_with_iobinding(binding)
        return kept, binding.get_outputs(), binding.copy_outputs_to_cpu()

    return call


def _by_address(ort: Any, binding: Any) -> Any:
    target = np.zeros((2, 3), np.float32)
    binding.bind_input("x", "cpu", 0, np.float32, X.shape, X.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, target.shape, target.ctypes.data)
    return target


def _by_value(shape: tuple[int, ...], dtype: Any = np.float32) -> Callable[[Any, Any], Any]:
    def bind(ort: Any, binding: Any) -> Any:
        target = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype))
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(2 * X))
        binding.bind_ortvalue_output("y", target)
        return target

    return bind


def _cleared(ort: Any, binding: Any) -> None:
    binding.bind_output("y")
    binding.clear_binding_outputs()
    binding.bind_output("z")
    binding.synchronize_inputs()
    binding.synchronize_outputs()


def _foreign_binding(ort: Any) -> Any:
    return opened(ort).run_with_iobinding(opened(ort).io_binding())


CALLS: dict[str, Callable[[Any], Any]] = {
    "all outputs": _run(None, {"x": X}),
    "no names": _run([], {"x": X}),
    "order of names": _run(["z", "y", "z"], {"x": X}),
    "one name as text": _run("y", {"x": X}),
    "default replaced": _run(["y"], {"x": X, "b": np.zeros(3, np.float32)}),
    "default of wrong shape": _run(["y"], {"x": X, "b": np.zeros(4, np.float32)}),
    "missing feed": _run(None, {}),
    "unknown feed": _run(None, {"x": X, "q": X}),
    "feeds without names": _run(None, [X]),
    "wrong dtype": _run(None, {"x": X.astype(np.float64)}),
    "integers": _run(None, {"x": X.astype(np.int64)}),
    "texts": _run(None, {"x": np.array([["a"] * 4])}),
    "wrong rank": _run(None, {"x": X[0]}),
    "wrong dimension": _run(None, {"x": X[:, :3]}),
    "unknown output": _run(["nope"], {"x": X}),
    "inner value as output": _run(["product"], {"x": X}),
    "lists": _run(["y"], {"x": [[1, 2, 3, 4]]}),
    "ragged lists": _run(["y"], {"x": [[1, 2], [1]]}),
    "tuples": _run(["y"], {"x": ((1, 2, 3, 4),)}),
    "number": _run(["y"], {"x": 1.0}),
    "None": _run(["y"], {"x": None}),
    "no rows": _run(["y"], {"x": X[:0]}),
    "strides": _run(["y"], {"x": np.arange(8, dtype=np.float32).reshape(4, 2).T}),
    "OrtValue as feed": lambda ort: opened(ort).run(
        ["y"], {"x": ort.OrtValue.ortvalue_from_numpy(X)}
    ),
    "run options of another type": lambda ort: opened(ort).run(None, {"x": X}, 3),
    "terminated": _terminated,
    "ort values": lambda ort: opened(ort).run_with_ort_values(
        ["z"], {"x": ort.OrtValue.ortvalue_from_numpy(X)}
    ),
    "ort values missing": lambda ort: opened(ort).run_with_ort_values(None, {}),
    "ort values that are arrays": lambda ort: opened(ort).run_with_ort_values(None, {"x": X}),
    "shapes that do not fit": lambda ort: opened(
        ort, graph_of([helper.make_node("MatMul", ["x", "c"], ["y"])], _TWO, "y")
    ).run(None, {"x": X, "c": X}),
    "inputs": lambda ort: opened(ort).get_inputs(),
    "outputs": lambda ort: opened(ort).get_outputs(),
    "defaults": lambda ort: opened(ort).get_overridable_initializers(),
    "symbols in inputs": lambda ort: opened(ort, _SYMBOLS).get_inputs(),
    "symbols in outputs": lambda ort: opened(ort, _SYMBOLS).get_outputs(),
    "text of an input": lambda ort: str(opened(ort).get_inputs()[0]),
    "metadata": _metadata,
    "path": lambda ort: opened(ort, "model.onnx").run(None, {"x": X}),
    "no such file": _load("nope.onnx"),
    "folder": _load("."),
    "no bytes": _load(b""),
    "other bytes": _load(b"hello world"),
    "truncated": _load(MODEL[:-20]),
    "None as model": _load(None),
    "bytearray": _load(bytearray(MODEL)),
    "unknown attribute": _load(
        graph_of([helper.make_node("Neg", ["x"], ["y"], foo=1)], _TWO[:1], "y")
    ),
    "too few inputs": _load(graph_of([helper.make_node("Add", ["x"], ["y"])], _TWO[:1], "y")),
    "wrong permutation": _load(
        graph_of([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 0])], _TWO[:1], "y")
    ),
    "options of another type": lambda ort: ort.InferenceSession(MODEL, 3),
    "CPU": _providers([CPU]),
    "no providers": _providers([]),
    "absent provider": _providers(["TensorrtExecutionProvider", CPU]),
    "unknown provider": _providers(["FooExecutionProvider"]),
    "unknown provider without fallback": _providers(["FooExecutionProvider"], enable_fallback=0),
    "provider twice": _providers([CPU, CPU]),
    "provider with options": _providers([(CPU, {"a": 1})]),
    "options beside": _providers([CPU], [{"a": "b"}]),
    "too few options": _providers([CPU], [], enable_fallback=0),
    "provider as number": _providers([3], enable_fallback=0),
    "all providers": lambda ort: ort.get_all_providers(),
    "unknown argument": _providers([CPU], foo=3),
    "defaults of options": _defaults,
    "unknown option": _option("foo", 1),
    "option of another type": _option("intra_op_num_threads", "many"),
    "level as number": _option("graph_optimization_level", 99),
    "entries": _entries,
    "no such entry": lambda ort: ort.SessionOptions().get_session_config_entry("a"),
    "entry that is no text": lambda ort: ort.SessionOptions().add_session_config_entry("a", 1),
    "entry without key": lambda ort: ort.SessionOptions().add_session_config_entry("", "b"),
    "fixed dimension": _fixed("n", 2),
    "fixed dimension of no input": _fixed("q", 2),
    "fixed dimension not kept": _fixed("n", 3, feed=True),
    "not profiled": lambda ort: opened(ort).end_profiling(),
    "severity": lambda ort: ort.set_default_logger_severity(9),
    "value of numpy": _value(lambda value: value.ortvalue_from_numpy(X)),
    "value of shape": _value(lambda value: value.ortvalue_from_shape_and_type([2, 3], np.int64)),
    "value of ONNX type": _value(
        lambda value: value.ortvalue_from_shape_and_type([2], TensorProto.FLOAT16)
    ),
    "value of bits": _value(
        lambda value: value.ortvalue_from_numpy_with_onnx_type(
            np.zeros(2, np.uint16), TensorProto.BFLOAT16
        )
    ),
    "value of negative shape": _value(
        lambda value: value.ortvalue_from_shape_and_type([-2], np.int64)
    ),
    "value of texts": _value(lambda value: value.ortvalue_from_numpy(np.array(["a"]))),
    "value of a list": _value(lambda value: value.ortvalue_from_numpy([1, 2])),
    "value nowhere": _value(lambda value: value.ortvalue_from_numpy(X, "foo", 0)),
    "value shares memory": _shared,
    "value updated": _updated(3 * X),
    "value updated by more": _updated(np.zeros((3, 4), np.float32)),
    "device": lambda ort: ort.OrtDevice.make("cpu", 0).device_type(),
    "no such device": lambda ort: ort.OrtDevice.make("foo", 0),
    "bound": _bound(lambda ort, binding: binding.bind_output("z")),
    "bound in order": _bound(lambda ort, binding: [binding.bind_output(n) for n in "zyz"]),
    "bound by address": _bound(_by_address),
    "bound by value": _bound(_by_value((2, 3))),
    "bound by value of wrong shape": _bound(_by_value((2, 5))),
    "bound by value of wrong dtype": _bound(_by_value((2, 3), np.float64)),
    "bound on an absent device": _bound(lambda ort, binding: binding.bind_output("y", "cuda")),
    "bound to nothing": _bound(lambda ort, binding: None),
    "bound unknown input": _bound(lambda ort, binding: binding.bind_cpu_input("q", X)),
    "bound unknown output": _bound(lambda ort, binding: binding.bind_output("q")),
    "bound a list": _bound(lambda ort, binding: binding.bind_cpu_input("x", [1])),
    "bound wrong dtype": _bound(
        lambda ort, binding: (binding.bind_cpu_input("x", X > 0), binding.bind_output("y"))[1]
    ),
    "bound and cleared": _bound(_cleared),
    "bound elsewhere": _foreign_binding,
}
