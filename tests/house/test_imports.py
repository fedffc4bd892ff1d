"""The import rules of docs/architecture.md, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]

SIBLINGS = {
    "runtime": (),
    "schemes": ("runtime",),
    "backends": ("runtime", "schemes"),
    "converter": ("runtime",),
    "configs": (),
    "mnnpy": ("runtime", "schemes", "backends", "converter", "configs", "mnnpy"),
}
"""Folder -> other folders that it may import."""

STOREYS = (
    ("errors", "files", "text_table", "runtime"),
    ("graph",),
    ("ops",),
    ("codec", "layouts", "devices", "contracts", "programs", "coefficients", "model_file"),
    ("preinference",),
)
"""Inside ``runtime``: a module imports its own storey and those before it. What is not listed
stands above them all."""

HEAVY = {"numba", "llvmlite", "cupy", "cupyx", "onnx", "typer", "rich", "yaml", "PIL"}


@cache
def sources() -> dict[str, Path]:
    """Module name -> file, for everything that is shipped."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text())


def imports(module: str) -> Iterator[tuple[str, int, bool]]:
    """(imported module, line, whether at import time) of every import statement."""
    inside = {
        id(child)
        for function in ast.walk(tree(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(function)
    }
    inside |= {
        id(child)
        for block in ast.walk(tree(module))
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for child in ast.walk(block)
    }
    for node in ast.walk(tree(module)):
        eager = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            assert node.module is not None
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in submodules if name in sources()]
            yield from ((name, node.lineno, eager) for name in known or [node.module])


def home(module: str) -> str:
    """The top-level folder of a module of ours."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and f"mnnpy.{parts[1]}" in PACKAGES else "mnnpy"


def ours(module: str) -> bool:
    return module == "mnnpy" or module.startswith("mnnpy.")


def storey(module: str) -> int:
    parts = module.split(".")
    name = parts[2] if len(parts) > 2 else "runtime"
    return next((i for i, names in enumerate(STOREYS) if name in names), len(STOREYS))


def ours_imported() -> Iterator[tuple[str, str, int]]:
    """(module, imported module, line) of every import among our own modules."""
    for module in sources():
        for imported, line, _ in imports(module):
            if ours(imported):
                yield module, imported, line


def test_siblings() -> None:
    broken = [
        f"{module}:{line} imports {imported}"
        for module, imported, line in ours_imported()
        if home(imported) not in (home(module), *SIBLINGS[home(module)])
    ]
    assert not broken


def test_storeys_of_runtime() -> None:
    broken = [
        f"{module}:{line} imports {imported}"
        for module, imported, line in ours_imported()
        if home(module) == "runtime" and storey(imported) > storey(module)
    ]
    assert not broken


def test_backends_do_not_know_each_other() -> None:
    folders = {path.parent.name for path in (ROOT / "backends").glob("*/__init__.py")}

    def folder(module: str) -> str | None:
        parts = module.split(".")
        return parts[2] if home(module) == "backends" and len(parts) > 2 else None

    broken = [
        f"{module}:{line} imports {imported}"
        for module, imported, line in ours_imported()
        if folder(module) in folders and folder(imported) in folders - {folder(module)}
    ]
    assert not broken


def calls(module: str) -> Iterator[tuple[str, int]]:
    """(function or method name, line) of every call."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            yield name, node.lineno


FORBIDDEN_CALLS = {
    "import_module": ("mnnpy.runtime.registry", "mnnpy.runtime.ops"),
    "__import__": (),
    "entry_points": ("mnnpy.runtime.registry",),
    "print": ("mnnpy.cli",),
}
"""Function -> prefixes of the modules that may call it."""


def test_forbidden_calls() -> None:
    broken = [
        f"{module}:{line} calls {name}"
        for module in sources()
        for name, line in calls(module)
        if name in FORBIDDEN_CALLS and not module.startswith(FORBIDDEN_CALLS[name])
    ]
    assert not broken


LAZY = (
    *("mnnpy.converter", "mnnpy.cli", "mnnpy.compat"),
    *("mnnpy.backends.numba_cpu", "mnnpy.backends.cupy_gpu"),
)
"""What ``import mnnpy`` does not reach, so that it may import heavy packages."""


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    broken = [
        f"{module}:{line} imports {imported}"
        for module in sources()
        if not module.startswith(LAZY)
        for imported, line, eager in imports(module)
        if eager and imported.split(".")[0] in HEAVY
    ]
    assert not broken


def test_import_is_light() -> None:
    code = f"import mnnpy, sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


DECLARED = {"ml_dtypes", "numpy", "onnx", "numba", "llvmlite", "yaml", "safetensors"}
DECLARED |= {"threadpoolctl", "typer", "rich", "cupy", "cupyx", "PIL", "cuda", "google"}
DECLARED |= {"onnxruntime"}
"""Packages that pyproject.toml installs, by their import names (onnx brings google.protobuf)."""


def test_dependencies_are_declared() -> None:
    known = DECLARED | set(sys.stdlib_module_names)
    broken = [
        f"{module}:{line} imports {imported}"
        for module in sources()
        for imported, line, _ in imports(module)
        if not ours(imported) and imported.split(".")[0] not in known
    ]
    assert not broken


def test_packages_are_listed() -> None:
    packages = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(packages)


def test_folders_with_code_are_packages() -> None:
    for path in sources().values():
        assert (path.parent / "__init__.py").exists(), path.parent.relative_to(ROOT)


def leaves(folder: str, root: str) -> set[str]:
    """Classes that derive from ``root``, in a folder, and from which no other class derives."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for module in sources()
        if home(module) == folder
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
    }
    derived = {root}
    while more := {name for name, of in bases.items() if of & derived} - derived:
        derived |= more
    return derived - {root} - set().union(*bases.values())


def test_every_scheme_is_listed() -> None:
    from mnnpy.schemes import SCHEMES

    assert {type(scheme).__name__ for scheme in SCHEMES} == leaves("schemes", "Scheme")
    names = [scheme.name for scheme in SCHEMES]
    assert len(set(names)) == len(names)


def test_every_operator_is_listed() -> None:
    from mnnpy.runtime.ops import OPERATORS

    made_by_planning, made_for_users = {"Fused", "Copy"}, {"UserOperator"}
    listed = {op.__name__ for op in OPERATORS.values()}
    assert leaves("runtime", "Op") - made_by_planning - made_for_users <= listed


def test_every_backend_is_listed() -> None:
    from mnnpy.runtime.registry import backend_names, load_backend

    folders = {p.parent.name for p in (ROOT / "backends").glob("*/backend.py")}
    found = {type(load_backend(name)).__module__.split(".")[2] for name in backend_names()}
    assert folders <= found


def test_version_is_said_once() -> None:
    from importlib.metadata import version

    from mnnpy.runtime import VERSION

    assert "version" in PROJECT["project"]["dynamic"]
    assert version("mnnpy") == VERSION
