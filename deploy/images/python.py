"""The base image of Python functions: this machine's Python and its standard library.

Not its installed packages: what a function needs beyond the standard library belongs into the function's image.
"""

import os
import py_compile
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import docker

from deploy.images.busybox import add_busybox, find_busybox
from deploy.images.errors import ImageBuildError
from deploy.images.libraries import shared_libraries
from deploy.images.recipe import BUILDER_DIGEST, Recipe, digest
from deploy.images.rootfs import RootFs, import_root

PYTHON_TAG = "faas/base-python:local"

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

# Of the interpreter behind the virtual environment, wherever it came from (a distribution, pyenv, uv ...). In the
# image it moves to /usr/local: Python finds its library relative to its program.
INTERPRETER = Path(sys.base_prefix) / "bin" / VERSION
LIBRARY = Path(os.__file__).parent
IMAGE_LIBRARY = f"/usr/local/{sys.platlibdir}/{VERSION}"

LEFT_OUT = frozenset({
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests",
    "tkinter", "turtledemo",
})  # fmt: skip
LEFT_OUT_PREFIXES = ("config-", "_test", "_tkinter", "_ctypes_test", "_xxtest", "xxlimited", "libpython", "turtle")
"""What only building, testing or drawing needs; a tkinter alone drags half of X11 in."""

OPENED_LATE = (
    "libdl.so.2", "libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libpthread.so.0", "libresolv.so.2",
    "librt.so.1", "libstdc++.so.6", "libutil.so.1",
)  # fmt: skip
"""Libraries that ldd does not show: glibc opens some when it needs them, and wheels from PyPI ask for the others."""

CHANGES = [
    # PYTHONDONTWRITEBYTECODE: a function's root is read-only and its user is nobody.
    "ENV PATH=/usr/local/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1",
    'CMD ["python3"]',
]


def python_base() -> Recipe:
    """Recipe of `faas/base-python:local`."""
    if not INTERPRETER.exists():
        raise ImageBuildError(f"{INTERPRETER} does not exist: make .venv with a Python that has its program there")
    # The sizes and times of change stand for the contents: reading 30 MB at every run would be the slowest step.
    library = [f"{path} {(found := path.stat()).st_size} {found.st_mtime_ns}" for path in _library_files()]
    interpreter = f"{sys.version} {INTERPRETER} {INTERPRETER.stat().st_mtime_ns}"
    inputs = digest(BUILDER_DIGEST, find_busybox().read_bytes(), interpreter, *library)
    return Recipe(tag=PYTHON_TAG, inputs=inputs, make=_make)


def _make(client: docker.APIClient, recipe: Recipe) -> None:
    import_root(client, recipe, fill=_fill, changes=CHANGES)


def _fill(root: RootFs) -> None:
    root.add_file(f"/usr/local/bin/{VERSION}", INTERPRETER)
    for name in ("python3", "python"):
        root.add_symlink(f"/usr/local/bin/{name}", VERSION)
    extensions = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in _library_files():
            inside = f"{IMAGE_LIBRARY}/{path.relative_to(LIBRARY)}"
            root.add_file(inside, path)
            if path.suffix == ".py":
                # Without compiled code each cold start would spend 150 ms compiling json and http again.
                root.add_file(cache_from_source(inside, optimization=""), _compiled(path, Path(scratch)))
            elif path.suffix == ".so":
                extensions.append(path)
    _add_libraries(root, extensions)
    add_busybox(root)


def _library_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(LIBRARY):
        folders[:] = sorted(name for name in folders if not _is_left_out(name))
        yield from (Path(folder, name) for name in sorted(files) if not _is_left_out(name))


def _is_left_out(name: str) -> bool:
    return name in LEFT_OUT or name.startswith(LEFT_OUT_PREFIXES)


def _compiled(source: Path, scratch: Path) -> Path:
    """The compiled code of a module: the one of this machine if it is up to date, else a new one in `scratch`."""
    present = Path(cache_from_source(str(source), optimization=""))
    if present.exists():
        with present.open("rb") as code:
            header = code.read(12)
        # PEP 552: magic number, flags, and with flags 0 the source's time of change.
        if header[4:] == bytes(4) + int(source.stat().st_mtime).to_bytes(4, "little"):
            return present
    target = scratch / "-".join(source.relative_to(LIBRARY).with_suffix(".pyc").parts)
    try:
        py_compile.compile(str(source), cfile=str(target), dfile=f"{IMAGE_LIBRARY}/{source.name}", doraise=True)
    except py_compile.PyCompileError as error:
        raise ImageBuildError(f"{source} does not compile: {error.msg}") from error
    return target


def _add_libraries(root: RootFs, extensions: list[Path]) -> None:
    """Add all libraries beside libc: a folder that the dynamic loader searches without a cache or a setting."""
    libraries = shared_libraries(INTERPRETER, *extensions)
    libc = next((path for name, path in libraries.items() if name.startswith("libc.")), None)
    if libc is None:
        raise ImageBuildError(f"{INTERPRETER} is not linked to a C library that ldd can name")
    for name, path in libraries.items():
        root.add_file(name if name.startswith("/") else f"{libc.parent}/{name}", path)
    for name in OPENED_LATE:
        if (path := libc.parent / name).exists():
            root.add_file(str(path), path.resolve())
