"""Machines as data: what algorithms do, and what that costs on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mnnpy.runtime.errors import BackendError

TileRates: TypeAlias = tuple[tuple[int, int, float], ...]
"""(rows, vectors, multiply-adds per second) of tiles of sums of products that lie in registers, for
every number of vectors from one on: the lowest tile, the tallest, and some between."""


_MORE_BANDWIDTH = 0.25
"""What each thread after the first adds to what one reads of memory: nothing on some virtual
machines, on others almost all of one thread's."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an algorithm does.

    Parameters
    ----------
    macs : multiply-adds.
    nbytes : bytes moved.
    launches : calls or launches.
    passed : bytes of its own that threads write for each other.
    streamed : bytes that come from memory while it computes: it takes at least as long as they do.
    """

    macs: int = 0
    nbytes: int = 0
    launches: int = 1
    passed: int = 0
    streamed: int = 0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Linear cost of one scheme on one device: what its Work costs in seconds."""

    seconds_per_mac: float
    seconds_per_byte: float
    seconds_per_launch: float

    def seconds(self, work: Work) -> float:
        return (
            work.macs * self.seconds_per_mac
            + work.nbytes * self.seconds_per_byte
            + work.launches * self.seconds_per_launch
        )


@dataclass(frozen=True, slots=True)
class Device:
    """A machine as data: planning needs this, never a live backend.

    Parameters
    ----------
    memory : the address space; backends with equal names share buffers without copies.
    coefficients : scheme name -> measured cost; ``"*"`` serves schemes that were not measured.
        ``"far"`` says what bytes cost more that steps hand on past the caches, ``"passed"`` those
        that threads write for each other within a step, ``"streamed"`` those from memory.
    grain_nbytes : how much output to finish before the next pass: what stays in a near cache.
    cache_nbytes : what the caches keep from one step to the next; None where it is not known.
    lanes : runs side by side, which share caches and memory.
    efficiency : what each thread after the first adds to a step, in threads.
    seconds_per_wait : of several threads for each other behind every step.
    tile_rates : how fast tiles of products run; empty where nobody timed them.
    """

    kind: str
    name: str
    memory: str
    features: tuple[str, ...] = ()
    threads: int = 1
    memory_nbytes: int | None = None
    grain_nbytes: int = 1 << 62
    cache_nbytes: int | None = None
    lanes: int = 1
    efficiency: float = 0.0
    seconds_per_wait: float = 0.0
    coefficients: Mapping[str, Coefficients] = field(default_factory=dict)
    tile_rates: TileRates = ()

    def seconds(self, scheme: str, work: Work, handed_nbytes: int = 0) -> float:
        """Predicted time of a scheme's work on all threads.

        Parameters
        ----------
        handed_nbytes : size of the tensors that other steps have written or will read.
        """
        found = self.coefficients.get(scheme) or self.coefficients.get("*")
        if found is None:
            raise BackendError(f"{self.name!r} has coefficients for neither {scheme!r} nor '*'")
        alone = found.seconds(work) + self._far_seconds(handed_nbytes)
        passing = self._passing_seconds(work.passed)
        return max(self.spread(alone, work.launches) + passing, self._streaming_seconds(work))

    def spread(self, seconds: float, launches: int) -> float:
        """What takes one thread so long, on all threads."""
        gain = 1 + (self.threads - 1) * self.efficiency
        return seconds / gain + (self.seconds_per_wait if gain > 1 and launches else 0)

    def _passing_seconds(self, nbytes: int) -> float:
        """What each thread waits for lines of others' caches."""
        passed = self.coefficients.get("passed")
        others = (self.threads - 1) / self.threads
        return passed.seconds(Work(0, nbytes, 0)) * others if passed and nbytes else 0.0

    def _streaming_seconds(self, work: Work) -> float:
        """What bytes take to come from memory, which threads and lanes share."""
        streamed = self.coefficients.get("streamed")
        if streamed is None or not work.streamed:
            return 0.0
        share = (1 + (self.lanes * self.threads - 1) * _MORE_BANDWIDTH) / self.lanes
        return streamed.seconds(Work(0, work.streamed, 0)) / share

    def _far_seconds(self, handed_nbytes: int) -> float:
        far = self.coefficients.get("far")
        if far is None or self.cache_nbytes is None:
            return 0.0
        return far.seconds(Work(0, max(0, handed_nbytes - self.cache_nbytes), 0))

    def limited(self, threads: int | None, lanes: int = 1) -> Device:
        """The device as one of ``lanes`` runs side by side has it, on that many threads at most."""
        most = self.threads if threads is None else min(self.threads, threads)
        cache = None if self.cache_nbytes is None else self.cache_nbytes // lanes
        return replace(self, threads=most, cache_nbytes=cache, lanes=lanes)
