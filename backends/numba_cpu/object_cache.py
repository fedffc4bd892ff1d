"""Machine code on disk, in a directory that nobody else can write to."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cached_property
from logging import getLogger
from pathlib import Path

from mnnpy.runtime.coefficients import cache_directory
from mnnpy.runtime.files import write_atomically

_LOG = getLogger("mnnpy")
_DIGEST_NBYTES = 32
_MOST_NBYTES = 256 << 20
"""Most bytes of a directory: some 30,000 kernels."""


class ObjectCache:
    """Object files by key: a file is the SHA-256 of its content, then the content.

    What is on disk will be run, so a directory of another user, or one that others may write to,
    is not used. A cache that cannot be used or written says so in one line of the log and loses
    only time. Files are written whole or not at all, so that processes may share a directory; the
    oldest go where it grows too large.

    Parameters
    ----------
    directory : made where it is missing, for its owner alone.
    most_nbytes : how large it may grow.
    """

    def __init__(self, directory: Path, most_nbytes: int = _MOST_NBYTES) -> None:
        self.directory = directory
        self._most_nbytes = most_nbytes

    def get(self, key: str) -> bytes | None:
        """The code that was put under this key; None where there is none, or a damaged file."""
        if not self._trusted:
            return None
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, code = content[:_DIGEST_NBYTES], content[_DIGEST_NBYTES:]
        return code if hashlib.sha256(code).digest() == digest else None

    def put(self, key: str, code: bytes) -> None:
        """Keep code under a key, where that is possible."""
        if not self._trusted or not self._writable:
            return
        try:
            write_atomically(self._path(key), hashlib.sha256(code).digest() + code)
        except OSError as error:
            self._writable = False
            _LOG.warning("kernels are not kept in %s: %s", self.directory, error.strerror)

    def clear(self) -> int:
        """Remove every file of the directory; the bytes that they took."""
        return self._remove(self._files(), 0) if self._trusted else 0

    @cached_property
    def _trusted(self) -> bool:
        reason = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            reason = distrust(self.directory.stat())
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            _LOG.warning("the kernel cache %s is not used: %s", self.directory, reason)
        return reason is None

    @cached_property
    def _writable(self) -> bool:
        """True until a write fails; the first write of a process makes room."""
        self._remove(self._files(), self._most_nbytes)
        return True

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.o"

    def _files(self) -> list[tuple[float, int, str]]:
        """(time of change, bytes, path) of every file, the oldest first."""
        found = []
        with suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, status.st_size, entry.path))
        return sorted(found)

    @staticmethod
    def _remove(files: list[tuple[float, int, str]], most_nbytes: int) -> int:
        """Remove the oldest files until the rest take at most so much; the bytes removed."""
        total, removed = sum(nbytes for _, nbytes, _ in files), 0
        for _, nbytes, path in files:
            if total - removed <= most_nbytes:
                break
            with suppress(OSError):
                os.unlink(path)
                removed += nbytes
        return removed


def host_object_cache() -> ObjectCache:
    """The user's compiled kernels."""
    return ObjectCache(cache_directory() / "kernels")


def distrust(found: os.stat_result) -> str | None:
    """Why code from a directory may not be run: others than its user or root may write it."""
    if os.name != "posix":
        return None
    if found.st_uid not in (0, os.getuid()):
        return f"it belongs to user {found.st_uid}: remove it, or set XDG_CACHE_HOME"
    if found.st_mode & 0o022:
        return f"others may write to it (mode {found.st_mode & 0o777:o}): chmod 700 it"
    return None
