"""A root file system as a tar archive, and an image made of one."""

import io
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import docker

from deploy.images.errors import ImageBuildError
from deploy.images.recipe import INPUTS_LABEL, Recipe

ACCOUNTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}
"""Enough for programs that look their own user up."""

OPEN_DIRECTORIES = ("/tmp", "/var/tmp")  # noqa: S108  # paths in the image, not on this machine
PLAIN_DIRECTORIES = ("/dev", "/proc", "/root", "/run", "/sys")


class RootFs:
    """Adds files to a tar archive, owned by root and readable by everybody, each path once (the first stays)."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._paths: set[str] = set()

    def add_skeleton(self) -> None:
        """Add the directories and account files that every image has."""
        for path in OPEN_DIRECTORIES:
            self.add_directory(path, mode=0o1777)
        for path in PLAIN_DIRECTORIES:
            self.add_directory(path)
        for path, text in ACCOUNTS.items():
            self.add_bytes(path, text.encode())

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and its parents."""
        if path != "/" and (entry := self._new_entry(path, mode)):
            entry.type = tarfile.DIRTYPE
            self._archive.addfile(entry)

    def add_symlink(self, path: str, target: str) -> None:
        """Add a symbolic link; its target need not exist."""
        if entry := self._new_entry(path, 0o777):
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            self._archive.addfile(entry)

    def add_bytes(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file with this content."""
        if entry := self._new_entry(path, mode):
            entry.size = len(data)
            self._archive.addfile(entry, io.BytesIO(data))

    def add_file(self, path: str, source: Path) -> None:
        """Add a copy of a file of this machine; of a symbolic link, what it points at.

        The time of change goes along: by it Python knows whether compiled code is up to date.
        """
        with source.open("rb") as content:
            found = source.stat()
            if entry := self._new_entry(path, 0o755 if found.st_mode & stat.S_IXUSR else 0o644):
                entry.size, entry.mtime = found.st_size, int(found.st_mtime)
                self._archive.addfile(entry, content)

    def _new_entry(self, path: str, mode: int) -> tarfile.TarInfo | None:
        if path in self._paths:
            return None
        self.add_directory(str(PurePosixPath(path).parent))
        self._paths.add(path)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.mode = mode
        return entry


def import_root(
    client: docker.APIClient, recipe: Recipe, *, fill: Callable[[RootFs], None], changes: list[str]
) -> None:
    """Make the recipe's image, a single layer, of what `fill` adds; `changes` are Dockerfile instructions.

    The archive goes through a temporary file and not a pipe: a failure half-way must not leave half an image.
    """
    repository, _, version = recipe.tag.rpartition(":")
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            root = RootFs(archive)
            root.add_skeleton()
            fill(root)
        file.flush()
        answer = client.import_image(
            file.name,
            repository=repository,
            tag=version,
            changes=[*changes, f"LABEL {INPUTS_LABEL}={recipe.inputs}"],
        )
    if "sha256:" not in answer:
        raise ImageBuildError(f"the Docker Engine did not import {recipe.tag}: {answer.strip()}")
