"""The shared libraries that programs of this machine need."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from deploy.images.errors import ImageBuildError

NEEDED = re.compile(r"^\s+(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
"""`libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x...)`, or the dynamic loader's path alone."""

MISSING = re.compile(r"^\s+(\S+) => not found$", re.MULTILINE)


def shared_libraries(*programs: Path) -> dict[str, Path]:
    """The libraries of all programs and their libraries' libraries, path by the name that is asked for.

    The dynamic loader is among them, its name being an absolute path. Nothing for a static program.
    """
    # ldd exits non-zero as soon as one of the files is static.
    answer = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    if missing := MISSING.findall(answer.stdout):
        raise ImageBuildError(f"{_listed(programs)}: libraries not found: {_listed(set(missing))}")
    return {match["name"] or match["path"]: Path(match["path"]).resolve() for match in NEEDED.finditer(answer.stdout)}


def _listed(items: Iterable[object]) -> str:
    return ", ".join(sorted(str(item) for item in items))
