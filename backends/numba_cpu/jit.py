"""Compiling LLVM IR for this machine, with an object cache on disk.

Numba's own code generator (llvmlite) is used directly: a kernel is a text of LLVM IR, its machine
code is kept in the user's cache directory under a hash of everything that changes it, and a later
process links the object without compiling.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from mnnpy.runtime.coefficients import cache_directory


@dataclass(frozen=True, slots=True)
class Cpu:
    """The instruction set that kernels are generated for."""

    name: str
    features: str

    @property
    def lanes(self) -> int:
        """float32 lanes of one vector register."""
        enabled = {feature for feature in self.features.split(",") if feature.startswith("+")}
        if "+avx512f" in enabled:
            return 16
        return 8 if "+avx2" in enabled else 4


def host_cpu() -> Cpu:
    """This machine, or what Numba is configured to pretend (``NUMBA_CPU_NAME`` and features)."""
    import numba

    config: Any = numba.config
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:
        features = "" if config.CPU_NAME else llvm.get_host_cpu_features().flatten()
    return Cpu(name, features)


class Jit:
    """Compiles, caches and links kernels for one CPU; keeps them alive.

    Parameters
    ----------
    cache : directory of object files; a trust boundary, so it belongs to the user.
    """

    def __init__(self, cpu: Cpu, cache: Path) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.cpu = cpu
        self._cache = cache
        self._triple = llvm.get_process_triple()
        self._machine = llvm.Target.from_triple(self._triple).create_target_machine(
            cpu=cpu.name, features=cpu.features, opt=3, reloc="pic", codemodel="default"
        )
        self._engines: list[Any] = []
        self._addresses: dict[str, int] = {}

    def address(self, ir: str, name: str) -> int:
        """Address of the function ``name`` of a module of LLVM IR."""
        key = self._key(ir)
        if key not in self._addresses:
            self._addresses[key] = self._link(self._object(ir, key), name)
        return self._addresses[key]

    def assembly(self, ir: str) -> str:
        """The machine code as text: to be read when a kernel falls short."""
        return str(self._machine.emit_assembly(self._optimised(ir)))

    def _object(self, ir: str, key: str) -> bytes:
        path = self._cache / f"{key}.o"
        if path.exists():
            return path.read_bytes()
        code: bytes = self._machine.emit_object(self._optimised(ir))
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=self._cache, delete=False) as file:
            file.write(code)
        os.replace(file.name, path)
        return code

    def _optimised(self, ir: str) -> Any:
        module = llvm.parse_assembly(ir)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        builder = llvm.create_pass_builder(self._machine, options)
        builder.getModulePassManager().run(module, builder)
        return module

    def _link(self, code: bytes, name: str) -> int:
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self._engines.append(engine)
        return int(engine.get_function_address(name))

    def _key(self, ir: str) -> str:
        parts: Sequence[str] = (
            self._triple,
            self.cpu.name,
            self.cpu.features,
            llvmlite.__version__,
        )
        return hashlib.sha256("\n".join((*parts, ir)).encode()).hexdigest()


@cache
def host_jit() -> Jit:
    """The compiler for this machine, one per process."""
    return Jit(host_cpu(), cache_directory() / "kernels")
