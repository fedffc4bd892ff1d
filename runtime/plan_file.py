"""Plan files: a plan as JSON, with every constant of its regions inside."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnnpy.runtime import VERSION
from mnnpy.runtime.codec import (
    Decoder,
    Json,
    Where,
    dtype_from,
    encode,
    malformed,
    parse_json,
    write_json,
)
from mnnpy.runtime.errors import ModelFormatError, PlanError
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.op import Op, operator_kind
from mnnpy.runtime.graph.types import STRING, Array, dtype_name
from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.ops.fused import OPERATORS as REGION_OPERATORS
from mnnpy.runtime.preinference.plan import MemoryPlan, Plan, Slot

FORMAT = "mnnpy plan"
FORMAT_VERSION = 1
MAX_PLAN_NBYTES = 256 << 20

_MAX_VALUES = 20_000_000
_OPERATORS = OPERATORS | {operator_kind(op): op for op in REGION_OPERATORS}


@dataclass(frozen=True, slots=True)
class _File:
    format: str
    version: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Inline:
    """A constant inside the JSON: strings as they are, everything else in base64."""

    dtype: str
    shape: tuple[int, ...]
    content: str | tuple[str, ...]


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan to a file, whole or not at all.

    Raises
    ------
    PlanError
        Where the file cannot be written.
    """
    try:
        write_atomically(path, write_json(plan_to_json(plan), indent=1).encode())
    except OSError as error:
        raise PlanError(f"cannot write {str(path)!r}: {error.strerror}") from error


def load_plan(path: str | Path, operators: Mapping[str, type[Op]] | None = None) -> Plan:
    """The plan of a file.

    Parameters
    ----------
    operators : users' operators that the plan may have, by kind.

    Raises
    ------
    PlanError
        Where the file cannot be read, is malformed, or was made by another version of mnnpy.
    """
    try:
        if Path(path).stat().st_size > MAX_PLAN_NBYTES:
            raise PlanError(f"{str(path)!r} is larger than {MAX_PLAN_NBYTES} bytes: not a plan")
        text = Path(path).read_bytes()
        return plan_from_json(parse_json(text, _MAX_VALUES), operators)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PlanError(f"cannot read the plan {str(path)!r}: {reason}") from error
    except ModelFormatError as error:
        raise PlanError(f"{str(path)!r} is no valid plan: {error}") from error


def plan_to_json(plan: Plan) -> Json:
    """The plan as JSON values."""
    return encode(_File(FORMAT, FORMAT_VERSION, plan), _inline)


def plan_from_json(data: Json, operators: Mapping[str, type[Op]] | None = None) -> Plan:
    """The plan of :func:`plan_to_json`; parameters as for :func:`load_plan`.

    Raises
    ------
    PlanError
        Where it was made by another version.
    ModelFormatError
        Where the data are malformed; says where.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelFormatError("not a plan that mnnpy wrote")
    if data.get("version") != FORMAT_VERSION:
        raise PlanError(
            f"the plan is of format version {data.get('version')!r}, mnnpy {VERSION} reads "
            f"version {FORMAT_VERSION}: make it again"
        )
    file: _File = Decoder(_OPERATORS | (operators or {}), _array).decode(data, _File, "file")
    made_by = file.plan.versions.get("mnnpy")
    if made_by != VERSION:
        raise PlanError(f"the plan was made by mnnpy {made_by}, this is {VERSION}: make it again")
    _check_stages(file.plan)
    for stage in file.plan.stages:
        _check_counts(stage)
        _check_memory(stage.memory, len(stage.steps))
    return file.plan


def _check_stages(plan: Plan) -> None:
    """Parts must be counted, and where they join, one value must go on to one stage for all."""
    for where, stage in zip(("plan", "plan.then"), plan.stages, strict=False):
        if not 1 <= stage.parts.lanes <= stage.parts.count:
            parts = stage.parts
            raise ModelFormatError(f"{where}.parts: {parts.lanes} lanes for {parts.count} parts")
    if plan.then is None:
        return
    handed, followed = list(plan.then.inputs), plan.then.then is not None
    if len(handed) != 1 or handed != list(plan.outputs):
        raise ModelFormatError(f"plan.then: reads {handed}, the parts make {list(plan.outputs)}")
    if followed or plan.then.parts.count > 1 or plan.parts.count == 1:
        raise ModelFormatError("plan.then: is for a whole batch behind its parts, and the last")


def _check_counts(plan: Plan) -> None:
    """Every step must have a layout per input and output, and aliases that it has."""
    for index, step in enumerate(plan.steps):
        where = f"plan.steps[{index}]"
        for names, layouts, kind in (
            (step.node.inputs, step.choice.input_layouts, "inputs"),
            (step.node.outputs, step.choice.output_layouts, "outputs"),
        ):
            if len(names) != len(layouts):
                raise ModelFormatError(f"{where}: {len(layouts)} layouts for {len(names)} {kind}")
        for output, given in step.aliases:
            if not (0 <= output < len(step.node.outputs) and 0 <= given < len(step.node.inputs)):
                raise ModelFormatError(f"{where}: the alias {(output, given)} is out of range")


def _check_memory(memory: MemoryPlan, steps: int) -> None:
    """Every slot must lie inside its arena and the plan."""
    if len(memory.workspaces) != steps:
        raise ModelFormatError(f"plan.memory: {len(memory.workspaces)} workspaces, {steps} steps")
    if memory.slots.keys() != memory.layouts.keys():
        raise ModelFormatError("plan.memory: slots and layouts are not of the same values")
    for name, slot in memory.slots.items():
        _check_slot(slot, memory, f"plan.memory.slots.{name}")
    for index, workspace in enumerate(memory.workspaces):
        if workspace is not None:
            _check_slot(workspace, memory, f"plan.memory.workspaces[{index}]")


def _check_slot(slot: Slot, memory: MemoryPlan, where: str) -> None:
    size = memory.arenas.get(slot.memory, 0)
    if not 0 <= slot.offset <= slot.offset + slot.nbytes <= size:
        raise ModelFormatError(
            f"{where}: {slot.nbytes} bytes at {slot.offset} in an arena of {size} bytes"
        )


def _inline(name: str, array: Array) -> Json:
    dtype = dtype_name(array.dtype)
    if array.dtype == STRING:
        content: str | list[str] = np.asarray(array).reshape(-1).tolist()
    else:
        content = base64.b64encode(np.asarray(array).tobytes()).decode()
    return {"dtype": dtype, "shape": list(array.shape), "content": content}


def _array(data: Json, where: Where) -> Array:
    stored: _Inline = Decoder().decode(data, _Inline, where)
    dtype = dtype_from(stored.dtype, (where, "dtype"))
    if (dtype == STRING) != isinstance(stored.content, tuple):
        raise malformed(where, f"content of a kind that {stored.dtype} does not have")
    try:
        if isinstance(stored.content, tuple):
            array: Any = np.empty(len(stored.content), STRING)
            array[:] = stored.content
        else:
            raw = base64.b64decode(stored.content, validate=True)
            array = np.frombuffer(raw, np.uint8).view(dtype)
        if array.size != math.prod(stored.shape):
            raise malformed(where, f"{array.size} elements for the shape {stored.shape}")
        array.flags.writeable = False
        return array.reshape(stored.shape)
    except (ValueError, binascii.Error) as error:
        raise malformed(where, str(error)) from error
