"""Compiling LLVM IR for this machine, with an object cache on disk.

Numba's own code generator (llvmlite) is used directly: a kernel is a text of LLVM IR, its machine
code is kept in the user's cache directory under a hash of everything that changes it, and a later
process links the object without compiling.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache, cached_property
from threading import Lock
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from mnnpy.backends.numba_cpu.object_cache import ObjectCache, host_object_cache

_OPTIMISATION = 3
"""Level of LLVM's passes and of its code generation."""


@dataclass(frozen=True)
class Cpu:
    """The instruction set that kernels are generated for."""

    name: str
    features: str

    @cached_property
    def lanes(self) -> int:
        """float32 lanes of one vector register."""
        enabled = {feature for feature in self.features.split(",") if feature.startswith("+")}
        if "+avx512f" in enabled:
            return 16
        return 8 if "+avx2" in enabled else 4

    @property
    def registers(self) -> int:
        """Vector registers."""
        enabled = self.features.split(",")
        return 32 if "+avx512f" in enabled or "+neon" in enabled else 16


def host_cpu() -> Cpu:
    """This machine, or what Numba's variables pretend (``NUMBA_CPU_NAME``, ``_FEATURES``)."""
    name, features = (os.environ.get(f"NUMBA_CPU_{key}") for key in ("NAME", "FEATURES"))
    if features is None:
        features = "" if name else llvm.get_host_cpu_features().flatten()
    return Cpu(name or llvm.get_host_cpu_name(), features)


class Jit:
    """Compiles, caches and links kernels for one CPU; keeps them alive."""

    def __init__(self, cpu: Cpu, cache: ObjectCache) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.cpu = cpu
        self._cache = cache
        self._triple = llvm.get_process_triple()
        self._linker = llvm.create_lljit_compiler(self._target_machine(jit=True))
        self._libraries: dict[str, Any] = {}
        self._lock = Lock()

    def address(self, ir: str, name: str) -> int:
        """Address of the function ``name`` of a module of LLVM IR."""
        key = self.key(ir)
        with self._lock:
            if key not in self._libraries:
                self._libraries[key] = self._link(self._object(ir, key), name, key)
            return int(self._libraries[key][name])

    def assembly(self, ir: str) -> str:
        """The machine code as text: to be read when a kernel falls short."""
        return str(self._machine.emit_assembly(self._optimised(ir)))

    @cached_property
    def _machine(self) -> Any:
        return self._target_machine(jit=False)

    def _target_machine(self, jit: bool) -> Any:
        return llvm.Target.from_triple(self._triple).create_target_machine(
            cpu=self.cpu.name,
            features=self.cpu.features,
            opt=_OPTIMISATION,
            reloc="pic",
            codemodel="jitdefault" if jit else "default",
            jit=jit,
        )

    def _object(self, ir: str, key: str) -> bytes:
        code = self._cache.get(key)
        if code is None:
            code = bytes(self._machine.emit_object(self._optimised(ir)))
            self._cache.put(key, code)
        return code

    def _optimised(self, ir: str) -> Any:
        module = llvm.parse_assembly(ir)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=_OPTIMISATION)
        builder = llvm.create_pass_builder(self._machine, options)
        builder.getModulePassManager().run(module, builder)
        return module

    def _link(self, code: bytes, name: str, library: str) -> Any:
        """A library of one object: names of functions are its own."""
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        return builder.export_symbol(name).link(self._linker, library)

    def key(self, ir: str) -> str:
        """A hash of everything that changes the machine code."""
        parts = (self._triple, self.cpu.name, self.cpu.features, llvmlite.__version__)
        return hashlib.sha256("\n".join((*parts, f"O{_OPTIMISATION}", ir)).encode()).hexdigest()


@cache
def host_jit() -> Jit:
    """The compiler for this machine, one per process."""
    return Jit(host_cpu(), host_object_cache())
