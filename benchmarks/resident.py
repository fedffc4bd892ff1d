"""Where the resident memory of a process that runs a model is, beside ONNX Runtime's.

``python -m benchmarks.resident`` runs every model once in fresh processes: ours from the ONNX file
and from its ``.mnnpy`` file, and ONNX Runtime. It ends with exit code 1 where ours takes more than
ONNX Runtime's, its packed weights and an allowance.
"""

from __future__ import annotations

import argparse
import json
import mmap
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.engines import OURS, REFERENCE
from benchmarks.models import MODELS, input_shape
from mnnpy import convert
from mnnpy.runtime.text_table import text_table

_ROOT = Path(__file__).resolve().parents[1]
_ALLOWANCE_MIB = 150
_PARTS = ("imports", "constants", "packed", "arenas", "code", "other", "total")
HEADINGS = ("model", "file", *_PARTS, REFERENCE, "limit")


@dataclass(frozen=True, slots=True)
class Resident:
    """MiB of one process after its first run.

    Parameters
    ----------
    imports : interpreter, NumPy, the engine's libraries and a session of one operator.
    constants : what is in memory of the model's own tensors.
    packed : their forms for kernels.
    arenas : activations and workspaces.
    code : compiled kernels.
    total : all of the process.
    """

    imports: float
    constants: float
    packed: float
    arenas: float
    code: float
    total: float

    @property
    def other(self) -> float:
        return float(self.total - sum(list(asdict(self).values())[:-1]))


@dataclass(frozen=True, slots=True)
class Itemised:
    """A process of ours beside one of ONNX Runtime's, on the same model; MiB.

    Parameters
    ----------
    file : ending of what it was loaded from.
    reference : total of the other process.
    """

    model: str
    file: str
    ours: Resident
    reference: float

    @property
    def total(self) -> float:
        return self.ours.total

    @property
    def limit(self) -> float:
        return self.reference + _ALLOWANCE_MIB + self.ours.packed

    def row(self) -> list[str]:
        """Cells under ``HEADINGS``."""
        parts = (getattr(self.ours, part) for part in _PARTS)
        numbers = (*parts, self.reference, self.limit)
        return [self.model, self.file, *(f"{mib:.1f}" for mib in numbers)]


def itemised(model: str) -> list[Itemised]:
    """Run a benchmark model: ours from its ONNX file, ours from ``.mnnpy``, and ONNX Runtime."""
    shape = input_shape(model)
    with TemporaryDirectory() as folder:
        source, converted = Path(folder, "model.onnx"), Path(folder, "model.mnnpy")
        source.write_bytes(MODELS[model]().SerializeToString())
        convert(source, converted)
        reference = measure_resident(REFERENCE, source, shape).total
        return [
            Itemised(model, path.suffix, measure_resident(OURS, path, shape), reference)
            for path in (source, converted)
        ]


def measure_resident(engine: str, model: Path, shape: Sequence[int]) -> Resident:
    """Run a model once in a fresh process.

    Raises
    ------
    RuntimeError
        Where that process fails, with the last line that it wrote.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.resident",
        "--inside",
        engine,
        str(model),
        json.dumps(shape),
    ]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{engine} failed: {done.stderr.strip().splitlines()[-1:]}")
    return Resident(**json.loads(done.stdout.splitlines()[-1]))


def _ours(model: Path, x: np.ndarray) -> Resident:
    from mnnpy import Session
    from mnnpy.runtime.graph.graph import Graph, Node
    from mnnpy.runtime.graph.types import FLOAT32, TensorType
    from mnnpy.runtime.ops.activation import Relu

    node = Node("relu", Relu(), ("x",), ("y",))
    Session(Graph((node,), {"x": TensorType(FLOAT32, (64,))}, ("y",), {}), "numba").prepare()
    imports, executable = _resident_mib(), _mapped_mib("r-xp", "")
    session = Session(model, "numba", threads=1)
    name = session.inputs[0].name
    session.run({name: x})
    constants = session.graph.constants.values()
    mapped = model.suffix == ".mnnpy"
    return Resident(
        imports,
        _mapped_mib("r", str(model)) if mapped else _mib(sum(a.nbytes for a in constants)),
        _mib(session.packed_nbytes),
        _mib(session.executable({name: x}).plan.arena_nbytes),
        _mapped_mib("r-xp", "") - executable,
        _resident_mib(),
    )


def _theirs(model: Path, x: np.ndarray) -> Resident:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    imports = _resident_mib()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: x})
    return Resident(imports, 0, 0, 0, 0, _resident_mib())


def _mib(nbytes: int) -> float:
    return nbytes / 2**20


def _resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return _mib(pages * mmap.PAGESIZE)


def _mapped_mib(permissions: str, file: str) -> float:
    """Resident part of the mappings of a file ("" for memory without one) with these rights."""
    total, counted = 0, False
    for words in _lines("/proc/self/smaps"):
        if "-" in words[0] and not words[0].endswith(":"):
            name = words[5] if len(words) > 5 else ""
            counted = words[1].startswith(permissions) and name == file
        elif counted and words[0] == "Rss:":
            total += int(words[1])
    return total / 1024


def _lines(path: str) -> Iterator[list[str]]:
    with Path(path).open() as file:
        yield from (line.split() for line in file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table in MiB; the limit is ONNX Runtime's total, the packed weights and 150."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    options = parser.parse_args(arguments)
    processes = [process for model in options.models for process in itemised(model)]
    print(text_table(HEADINGS, [process.row() for process in processes], HEADINGS[2:]))
    above = [f"{p.model}{p.file}" for p in processes if p.total > p.limit]
    if above:
        print(f"\nabove the limit: {', '.join(above)}")
    return 1 if above else 0


def _inside(engine: str, model: str, shape: str) -> None:
    """Runs in the fresh process."""
    x = np.zeros(json.loads(shape), dtype=np.float32)
    found = (_ours if engine == OURS else _theirs)(Path(model), x)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        _inside(*sys.argv[2:])
    else:
        raise SystemExit(main())
