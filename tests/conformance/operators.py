"""``python -m tests.conformance.operators``: write docs/operators.md.

What there is follows from the code; how many of ONNX's cases pass, from the last run of ``make
conformance``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import defs

from mnnpy.converter.importers import IMPORTERS
from mnnpy.converter.onnx_functions import domain_of
from mnnpy.runtime.contracts import Backend
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.registry import load_backend
from tests.conformance.suite import cases_file, load_node_cases

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"

LEFT_OUT: dict[tuple[str, str], str] = {
    ("ai.onnx.ml", "CastMap"): "takes a map; values are tensors, sequences and optionals",
    ("ai.onnx.ml", "DictVectorizer"): "takes a map; values are tensors, sequences and optionals",
    ("ai.onnx.preview.training", "Gradient"): "differentiates the graph around it: training",
}
"""ONNX's operators that models cannot use, and why."""

BY_THE_READER = {("", "Constant")}
"""What needs no importer, since it becomes a constant of the graph."""

_HEAD = """# Operators

Written by `make docs-operators` from the importers, the backends and the last run of `make
conformance`; do not edit.

**Versions** are those of ONNX's domain in which the operator changed, from the first one that is
read. **Made of**: the operator's own implementation, the operators of which the importer composes
it, or ONNX's function. Every operator with an own implementation has a reference in array code, by
which NumPy runs it, and CuPy too except where it needs the host; **numpy** and **numba** name
the faster schemes that a planner may choose besides. **Cases** are those of ONNX's suite that hold
the operator, function bodies included: how many pass on numpy and numba, of how many. What that
suite does not have, `com.microsoft` and most of `ai.onnx.ml`, is tested against ONNX Runtime
(`tests/converter`).
"""


@dataclass(frozen=True)
class Row:
    """One operator of the document."""

    domain: str
    name: str
    versions: str
    made_of: str
    numpy: str
    numba: str
    cuda: str
    cases: str


def supported() -> list[tuple[str, str]]:
    """(domain, operator) of everything that models can use, in order."""
    schemas = defs.get_all_schemas_with_history()
    functions = {
        (domain_of(schema.domain), schema.name)
        for schema in schemas
        if schema.has_function or schema.has_context_dependent_function
    }
    return sorted({*IMPORTERS, *functions, *BY_THE_READER})


def missing() -> set[tuple[str, str]]:
    """(domain, operator) of what ONNX defines and models cannot use."""
    schemas = defs.get_all_schemas_with_history()
    return {(domain_of(s.domain), s.name) for s in schemas}.difference(supported())


def rows(passed: Mapping[tuple[str, str], str]) -> Iterator[Row]:
    """The document's rows; ``passed`` tells of the cases of an operator."""
    backends = {name: load_backend(name) for name in ("numpy", "numba", "cuda")}
    common = {name: _common_schemes(backend) for name, backend in backends.items()}
    for domain, name in supported():
        kind = f"{domain}.{name}" if domain else name
        op = OPERATORS.get(kind)
        schemes = {
            backend: ", ".join(sorted(_schemes(backends[backend], op) - common[backend]))
            for backend in ("numpy", "numba")
        }
        cuda = "" if op is None else "host" if op.host_only else "CuPy"
        cases = passed.get((domain, name), "")
        made_of = _made_of(domain, name, op)
        yield Row(domain, name, _versions(domain, name), made_of, **schemes, cuda=cuda, cases=cases)


def _made_of(domain: str, name: str, op: type[Op] | None) -> str:
    if op is not None:
        return "own"
    if (domain, name) in BY_THE_READER:
        return "the graph's constants"
    return "other operators" if (domain, name) in IMPORTERS else "ONNX's function"


def _versions(domain: str, name: str) -> str:
    first = min((row.since for row in IMPORTERS.get((domain, name), ())), default=1)
    history = [
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if (domain_of(schema.domain), schema.name) == (domain, name)
    ]
    read = {version for version in history if version >= first} | {first}
    return ", ".join(map(str, sorted(read)))


def _schemes(backend: Backend, op: type[Op] | None) -> set[str]:
    """Schemes that a backend has for an operator; which one it is is all that they look at."""
    return set() if op is None else {kernel.scheme for kernel in backend.kernels(op.__new__(op))}


def _common_schemes(backend: Backend) -> set[str]:
    """Schemes that are offered for every operator."""
    sets = [_schemes(backend, op) for op in OPERATORS.values() if not op.host_only]
    return set.intersection(*sets)


def passed_cases(outcomes: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """Per operator, the cases passed on every backend, of how many: "6 6 / 6"."""
    operators: dict[str, set[tuple[str, str]]] = {}
    for case in load_node_cases():
        if "_expanded" not in case.name:
            nodes = case.model.graph.node
            operators[case.name] = {(domain_of(node.domain), node.op_type) for node in nodes}
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for backend, found in outcomes.items():
        for name, outcome in found.items():
            base = name.removesuffix("_cpu").split("_expanded")[0]
            for operator in operators.get(base, ()):
                counts[operator][backend] += outcome == "pass"
                counts[operator][f"{backend} of"] += 1
    return {
        operator: f"{' '.join(str(count[backend]) for backend in outcomes)} / "
        f"{max(count[f'{backend} of'] for backend in outcomes)}"
        for operator, count in counts.items()
    }


def document(passed: Mapping[tuple[str, str], str]) -> str:
    parts = [_HEAD]
    by_domain: dict[str, list[Row]] = defaultdict(list)
    for row in rows(passed):
        by_domain[row.domain].append(row)
    for domain, group in by_domain.items():
        parts.append(f"\n## {domain or 'ai.onnx'} ({len(group)})\n")
        head = ("operator", "versions", "made of", "numpy", "numba", "cuda", "cases")
        cells = [
            (f"`{r.name}`", r.versions, r.made_of, r.numpy, r.numba, r.cuda, r.cases) for r in group
        ]
        parts += _table(head, cells)
    parts.append(f"\n## Left out ({len(LEFT_OUT)})\n")
    left = [(f"`{'.'.join(key)}`", reason) for key, reason in LEFT_OUT.items()]
    parts += _table(("operator", "why"), left)
    return "\n".join(parts) + "\n"


def _table(head: tuple[str, ...], cells: list[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conformance", type=Path, default=Path("build/conformance.json"))
    path = cases_file(parser.parse_args().conformance)
    if not path.exists():
        raise SystemExit(f"{path} is missing: run make conformance first")
    outcomes: dict[str, Any] = json.loads(path.read_text())
    DOCUMENT.write_text(document(passed_cases(outcomes)))


if __name__ == "__main__":
    main()
