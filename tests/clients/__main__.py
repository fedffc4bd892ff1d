"""``python -m tests.clients``: install, change the imports in a copy, run both ways, compare.

The environment stays under ``build/clients`` and is used again; ``--fresh`` makes it anew.
``silero-vad`` is run where its package and torch are in the environment: ``--with silero-vad``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.clients.running import FOLDER, compared, copy_changed, python_of
from tests.clients.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
_COLUMNS = "{:22} {:34} {:>9} {:>16} {:>16}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument(
        "--with", nargs="+", default=[], dest="more", help="packages to install too"
    )
    parser.add_argument("--backend", default="auto", help="what runs the CPU provider's models")
    parser.add_argument("--fresh", action="store_true", help="make the environment anew")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    _install(options.more)
    copy_changed()
    print(_COLUMNS.format("client", "result", "distance", "onnxruntime s", "mnnpy s"))
    failed = 0
    for name in options.only:
        row = compared(name, options.backend)
        failed += row.failed
        times = [
            f"{seconds[0]:.1f} + {seconds[2]:.3f}" if seconds else "-" for seconds in row.seconds
        ]
        print(_COLUMNS.format(name, row.verdict, row.distance_text, *times), flush=True)
    print("seconds: opening the client, and one use after the first")
    return 1 if failed else 0


def _install(more: list[str]) -> None:
    python = python_of(FOLDER / "venv")
    if not python.exists():
        venv.create(FOLDER / "venv", with_pip=True)
        requirements = str(Path(__file__).with_name("requirements.txt"))
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", requirements, "--editable", str(ROOT)], check=True)
    if more:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *more], check=True)


if __name__ == "__main__":
    sys.exit(main())
