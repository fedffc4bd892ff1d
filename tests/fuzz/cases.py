"""Cases by number: the same number is the same case, in any process."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import TensorType, Type
from tests.conformance.suite import load_node_cases
from tests.fuzz import feeding, mutations
from tests.runtime import malformed_models

Kind: TypeAlias = Literal["models", "feeds"]
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"
MOST_ELEMENTS = 1_000_000
"""A damaged shape may ask for any amount of input; models that ask for more are not run."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A valid model with feeds that it runs on."""

    name: str
    model: bytes
    feeds: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and what it is fed: for a damaged model, that of the seed as far as it fits."""

    name: str
    model: bytes
    feeds: Any
    damaged: Kind


def write_seeds(path: Path) -> None:
    """Collect the seeds, which takes seconds, once for all processes."""
    seeds = [_of_suite(case) for case in load_node_cases() if case.data_sets]
    digits = Seed("digits", DIGITS.read_bytes(), {"image": np.ones((2, 1, 8, 8), np.float32)})
    small = {"x": np.ones((2, 3, 8, 8), np.float32)}
    ours = Seed("mnnpy", malformed_models.valid_file(), small)
    path.write_bytes(pickle.dumps(seeds + [digits, ours] * 40))


@cache
def read_seeds(path: Path) -> list[Seed]:
    return list(pickle.loads(path.read_bytes()))


def make_case(seeds: list[Seed], kind: Kind, number: int) -> Case:
    rng = random.Random(f"{kind} {number}")
    seed = rng.choice(seeds)
    if kind == "feeds":
        return Case(seed.name, seed.model, feeding.damaged(seed.feeds, rng), kind)
    if seed.name == "mnnpy":
        content = bytearray(seed.model)
        rng.choice(mutations.BYTES_DAMAGES)(content, rng)
        return Case(seed.name, bytes(content), seed.feeds, kind)
    content = mutations.damaged(onnx.load_model_from_string(seed.model), rng)
    return Case(seed.name, content, seed.feeds, kind)


def feeds_for(graph: Graph, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Known feeds where they fit, else ones, two along symbolic axes; None where it is too much."""
    feeds: dict[str, Any] = {}
    total = 0
    for name, declared in graph.inputs.items():
        if _fits(known.get(name), declared):
            feeds[name] = known[name]
            continue
        if not isinstance(declared, TensorType):
            feeds[name] = []
            continue
        shape = tuple(dim if isinstance(dim, int) else 2 for dim in declared.shape)
        total += int(np.prod([float(dim) for dim in shape]))
        if total > MOST_ELEMENTS:
            return None
        feeds[name] = np.ones(shape).astype(declared.dtype)
    return feeds


def _fits(feed: Any, declared: Type) -> bool:
    if not isinstance(declared, TensorType) or not isinstance(feed, np.ndarray):
        return isinstance(feed, list) and not isinstance(declared, TensorType)
    return feed.dtype == declared.dtype and not any(map(differ, feed.shape, declared.shape))


def _of_suite(case: Any) -> Seed:
    names = [entry.name for entry in case.model.graph.input]
    inputs = [np.asarray(v) if np.isscalar(v) else v for v in case.data_sets[0][0]]
    return Seed(case.name, case.model.SerializeToString(), dict(zip(names, inputs, strict=False)))
