"""The base image of shell functions: a static busybox and nothing else."""

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker

from deploy.images.errors import ImageBuildError
from deploy.images.libraries import shared_libraries
from deploy.images.recipe import BUILDER_DIGEST, Recipe, digest
from deploy.images.rootfs import RootFs, import_root

BUSYBOX_TAG = "faas/base-busybox:local"

BUILD_DIR = Path(__file__).parents[2] / "build"
"""Where a downloaded busybox is kept for the next run."""

NO_BUSYBOX = "no static busybox found: install the package busybox-static (or put one on PATH) and run this again"


def busybox_base() -> Recipe:
    """Recipe of `faas/base-busybox:local`."""
    return Recipe(tag=BUSYBOX_TAG, inputs=digest(BUILDER_DIGEST, find_busybox().read_bytes()), make=_make)


def add_busybox(root: RootFs) -> None:
    """Put busybox and a link for each of its applets (sh, cat, sleep ...) into /bin."""
    busybox = find_busybox()
    root.add_file("/bin/busybox", busybox)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        root.add_symlink(f"/bin/{applet}", "busybox")


@functools.cache
def find_busybox() -> Path:
    """A static busybox: the one on PATH, else one out of Debian's or Ubuntu's package."""
    for busybox in _candidates():
        if busybox.exists() and not shared_libraries(busybox):
            return busybox
    raise ImageBuildError(NO_BUSYBOX)


def _make(client: docker.APIClient, recipe: Recipe) -> None:
    import_root(client, recipe, fill=add_busybox, changes=["ENV PATH=/bin", 'CMD ["/bin/sh"]'])


def _candidates() -> Iterator[Path]:
    """Cheapest first; the last one is downloaded when it is asked for."""
    if on_path := shutil.which("busybox"):
        yield Path(on_path)
    unpacked = BUILD_DIR / "busybox-static"
    yield unpacked / "bin/busybox"
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        _unpack_package(unpacked)
        yield unpacked / "bin/busybox"
        yield unpacked / "usr/bin/busybox"  # where Debian 13 has it


def _unpack_package(target: Path) -> None:
    """Unpack busybox-static, not install it: that needs no root, and would remove the package busybox.

    Does nothing when the package can't be had.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Without the option apt, run by root, warns that its own user can't write here.
        command = ["apt-get", "download", "-o", "APT::Sandbox::User=root", "busybox-static"]
        subprocess.run(command, cwd=scratch, capture_output=True, check=False)
        for package in Path(scratch).glob("*.deb"):
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg-deb", "-x", package, target], check=True)
