"""Compiled kernels on disk: what is kept, what is trusted, and what happens when it is damaged."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnnpy.backends.numba_cpu import object_cache
from mnnpy.backends.numba_cpu.jit import Cpu, Jit, host_cpu
from mnnpy.backends.numba_cpu.object_cache import ObjectCache, distrust

FORTY_TWO = "define i64 @run() {\n  ret i64 42\n}\n"


def call(jit: Jit) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(jit.address(FORTY_TWO, "run"))())


def test_a_later_process_finds_what_was_kept(tmp_path: Path) -> None:
    ObjectCache(tmp_path / "new" / "kernels").put("key", b"code")
    assert ObjectCache(tmp_path / "new" / "kernels").get("key") == b"code"
    assert ObjectCache(tmp_path / "new" / "kernels").get("other") is None
    assert (tmp_path / "new" / "kernels").stat().st_mode & 0o777 == 0o700


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "shorter than its digest": lambda content: content[:10],
    "truncated": lambda content: content[:-1],
    "one bit flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "no digest": lambda content: content[32:],
    "something else": lambda content: b"MZ" * 100,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_compiled_again(tmp_path: Path, damage: str) -> None:
    assert call(Jit(host_cpu(), ObjectCache(tmp_path))) == 42
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    assert call(Jit(host_cpu(), ObjectCache(tmp_path))) == 42
    assert file.read_bytes() == whole


def test_kept_kernels_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(Jit(host_cpu(), ObjectCache(tmp_path)))
    monkeypatch.setattr(Jit, "_optimised", None)
    assert call(Jit(host_cpu(), ObjectCache(tmp_path))) == 42


def test_keys_tell_processors_apart(tmp_path: Path) -> None:
    cpu = host_cpu()
    for other in (cpu, Cpu(cpu.name, ""), Cpu("x86-64", cpu.features)):
        Jit(other, ObjectCache(tmp_path)).address(FORTY_TWO, "run")
    assert len(list(tmp_path.iterdir())) == 3


def test_equal_names_in_several_kernels_stay_apart(tmp_path: Path) -> None:
    jit = Jit(host_cpu(), ObjectCache(tmp_path))
    modules = [
        f"define i64 @run() {{\n  %x = call i64 @help()\n  ret i64 %x\n}}\n"
        f"define i64 @help() noinline {{\n  ret i64 {number}\n}}\n"
        for number in range(3)
    ]
    run = ctypes.CFUNCTYPE(ctypes.c_int64)
    assert [run(jit.address(ir, "run"))() for ir in modules] == [0, 1, 2]


@pytest.mark.parametrize(
    ("mode", "owner", "reason"),
    [
        (0o40700, os.getuid(), None),
        (0o40755, os.getuid(), None),
        (0o40755, 0, None),
        (0o40700, os.getuid() + 1, "belongs to user"),
        (0o40777, os.getuid(), "others may write to it"),
        (0o40770, os.getuid(), "others may write to it"),
        (0o41777, 0, "others may write to it"),
    ],
)
def test_whom_to_trust(mode: int, owner: int, reason: str | None) -> None:
    found = distrust(os.stat_result((mode, 0, 0, 0, owner, 0, 0, 0, 0, 0)))
    assert found is None if reason is None else found is not None and reason in found


def test_an_open_directory_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ObjectCache(tmp_path).put("key", b"code")
    tmp_path.chmod(0o777)
    cache = ObjectCache(tmp_path)
    with caplog.at_level(logging.WARNING, "mnnpy"):
        assert cache.get("key") is None
        cache.put("other", b"code")
        assert cache.clear() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["key.o"]
    (line,) = caplog.messages
    assert "others may write to it (mode 777)" in line


def test_no_directory_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "mnnpy"):
        assert call(Jit(host_cpu(), ObjectCache(tmp_path / "file" / "kernels"))) == 42
    (line,) = caplog.messages
    assert "is not used: Not a directory" in line


def test_a_full_disk_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(object_cache, "write_atomically", refuse)
    cache = ObjectCache(tmp_path)
    with caplog.at_level(logging.WARNING, "mnnpy"):
        assert call(Jit(host_cpu(), cache)) == 42
        cache.put("another", b"code")
    (line,) = caplog.messages
    assert "No space left on device" in line


def test_it_stays_below_its_limit(tmp_path: Path) -> None:
    for day, key in enumerate("abcd"):
        ObjectCache(tmp_path).put(key, bytes(1000))
        os.utime(tmp_path / f"{key}.o", (day, day))
    ObjectCache(tmp_path, most_nbytes=2 * 1032).put("e", bytes(1000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.o", "d.o", "e.o"]


def test_clear(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.put("key", bytes(100))
    assert cache.clear() == 132
    assert not list(tmp_path.iterdir())
    assert cache.get("key") is None


def test_many_writers_at_once(tmp_path: Path) -> None:
    keys = [f"key{index}" for index in range(8)]

    def write_and_read(turn: int) -> bool:
        cache = ObjectCache(tmp_path)
        for key in keys:
            cache.put(key, key.encode() * 1000)
        return all(cache.get(key) == key.encode() * 1000 for key in keys)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(16)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{key}.o" for key in keys]
