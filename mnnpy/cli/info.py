"""``mnnpy info``: what a model holds and what it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import typer

from mnnpy import Session
from mnnpy.cli import options
from mnnpy.cli.progress import spinner
from mnnpy.runtime.feeds import TensorInfo, concrete_inputs
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.preinference.explain import nbytes_text
from mnnpy.runtime.text_table import text_table


def info(model: options.Model, shape: options.Shapes = None) -> None:
    """Show inputs, outputs, operators, parameters, multiply-adds and activation memory.

    Operators are counted as they are after conversion.

    **Examples**

    ```
    mnnpy info model.onnx
    mnnpy info detector.onnx --shape image=1,3,480,640
    ```
    """
    with spinner(f"reading {model.name}"):
        session = Session(model, backend="numpy")
        graph = session.graph
        shapes = options.shapes_for(graph, shape)
        macs = count_macs(graph, concrete_inputs(graph, shapes))
        plan = session.plan(shapes)
    typer.echo(f"{model}: {graph.name or 'unnamed'}, {_origin(graph)}\n")
    typer.echo(text_table(("", "name", "type", "shape"), list(_interface_rows(session))))
    counts = Counter(node.op.kind for node in graph.nodes)
    rows = [[kind, str(count)] for kind, count in counts.most_common()]
    typer.echo("\n" + text_table(("operator", "count"), rows, ("count",)))
    sizes = ", ".join(f"{name} {'x'.join(map(str, size))}" for name, size in shapes.items())
    typer.echo(f"\nparameters         {_parameters(graph)}")
    typer.echo(f"for                {sizes}")
    typer.echo(f"multiply-adds      {macs:,}")
    typer.echo(f"activation memory  {nbytes_text(plan.arena_nbytes)}")


def count_macs(graph: Graph, inputs: dict[str, Value]) -> int:
    """Multiply-adds of one run by the operators' textbook algorithms."""
    values = infer_values(graph, inputs)
    total = 0
    for node in graph.nodes:
        reads = [None if name is None else values[name] for name in node.inputs]
        types = [t for name in node.outputs if (t := values[name].type) is not None]
        total += node.op.macs(reads, types)
    return total


def _interface_rows(session: Session) -> Iterable[list[str]]:
    for role, infos in (("input", session.inputs), ("output", session.outputs)):
        for entry in infos:
            yield [role, entry.name, entry.dtype, _shape(entry)]


def _shape(entry: TensorInfo) -> str:
    return "?" if entry.shape is None else " x ".join(map(str, entry.shape)) or "scalar"


def _origin(graph: Graph) -> str:
    parts = [graph.metadata.get("producer") or "unknown producer"]
    if graph.metadata.get("opset"):
        parts.append(f"opset {graph.metadata['opset']}")
    return ", ".join(parts)


def _parameters(graph: Graph) -> str:
    arrays = graph.constants.values()
    count, nbytes = sum(a.size for a in arrays), sum(a.nbytes for a in arrays)
    return f"{count:,} ({nbytes_text(nbytes)})"
