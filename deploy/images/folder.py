"""An image of a folder with a Dockerfile, its C sources compiled to static programs."""

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import docker

from deploy.images.errors import ImageBuildError
from deploy.images.recipe import BUILDER_DIGEST, INPUTS_LABEL, Recipe, digest
from deploy.images.rootfs import RootFs

COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static")
"""Static, so that the image is the program alone (`FROM scratch`) and starts in no time."""

FROM = re.compile(r"^FROM\s+(\S+)", re.MULTILINE | re.IGNORECASE)


def image_from_folder(folder: Path, tag: str, bases: list[Recipe]) -> Recipe:
    """Recipe of the image that the folder's Dockerfile describes.

    For each `name.c` in it the Dockerfile may COPY `name`, the compiled program. A base image that it is FROM is
    made first if it is one of `bases`.
    """
    wanted = FROM.findall((folder / "Dockerfile").read_text())
    needs = tuple(base for base in bases if base.tag in wanted)

    def make(client: docker.APIClient, recipe: Recipe) -> None:
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as context:
            with tarfile.open(fileobj=context, mode="w") as archive:
                _add_context(RootFs(archive), folder, Path(scratch))
            context.seek(0)
            steps = client.build(
                fileobj=context, custom_context=True, tag=tag, labels={INPUTS_LABEL: recipe.inputs}, rm=True,
                forcerm=True, decode=True,
            )  # fmt: skip
            for step in steps:
                if "error" in step:
                    raise ImageBuildError(f"building {tag} from {folder} failed: {step['error'].strip()}")

    contents = [part for path in _files(folder) for part in (path.name, path.read_bytes())]
    inputs = digest(BUILDER_DIGEST, *contents, *(need.inputs for need in needs))
    return Recipe(tag=tag, inputs=inputs, make=make, needs=needs)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _add_context(context: RootFs, folder: Path, scratch: Path) -> None:
    for path in _files(folder):
        context.add_file(f"/{path.name}", path)
        if path.suffix == ".c":
            context.add_file(f"/{path.stem}", _compile(path, scratch / path.stem))


def _compile(source: Path, program: Path) -> Path:
    if not shutil.which(COMPILE[0]):
        raise ImageBuildError(f"{source} needs a C compiler: install the packages gcc and libc6-dev")
    answer = subprocess.run([*COMPILE, "-o", program, source], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ImageBuildError(f"compiling {source} failed:\n{answer.stderr.strip()}")
    return program
