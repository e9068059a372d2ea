"""What an image is made of, and making those that the engine does not have yet."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, DockerException

from deploy.images.errors import ImageBuildError

INPUTS_LABEL = "faas.image.inputs"
"""Label on every image made here: the digest of its inputs, by which the next run finds it again."""

PARALLEL_BUILDS = 2
"""More than this only makes the engine's disk the bottleneck."""

MakeImage = Callable[[docker.APIClient, "Recipe"], None]


def digest(*parts: bytes | str) -> str:
    """A hex digest of the parts; ("ab", "c") and ("a", "bc") differ."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


BUILDER_DIGEST = digest(*(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
"""Part of every image's inputs: a changed builder makes its images anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image: `make` builds it, tags it `tag` and labels it with `inputs`; `needs` must exist before."""

    tag: str
    inputs: str
    make: MakeImage
    needs: tuple["Recipe", ...] = ()


@dataclass(frozen=True, slots=True)
class _Image:
    id: str = ""
    inputs: str = ""


NO_IMAGE = _Image()


def ensure(recipes: Iterable[Recipe], report: Callable[[str], None] = lambda _line: None) -> None:
    """Make every image of `recipes`, and of what they need, whose inputs the engine has no image of.

    `report` hears a line for each image that is made. Raises ImageBuildError.
    """
    with engine() as client:
        present = _labelled_images(client)
        missing = [recipe for recipe in _flatten(recipes) if present.get(recipe.tag, NO_IMAGE).inputs != recipe.inputs]
        replaced = [present[recipe.tag].id for recipe in missing if recipe.tag in present]
        while missing:
            absent = {recipe.tag for recipe in missing}
            ready = [recipe for recipe in missing if absent.isdisjoint(need.tag for need in recipe.needs)]
            _make_all(ready, report)
            missing = [recipe for recipe in missing if recipe not in ready]
        for image_id in replaced:
            with contextlib.suppress(APIError):  # still used by a container or by another image
                client.remove_image(image_id)


@contextlib.contextmanager
def engine() -> Iterator[docker.APIClient]:
    """A client of the Docker Engine that DOCKER_HOST names; its errors come out as ImageBuildError."""
    try:
        with contextlib.closing(docker.from_env()) as client:
            yield client.api
    except DockerException as error:
        raise ImageBuildError(f"the Docker Engine said: {error}") from error


def _make_all(recipes: list[Recipe], report: Callable[[str], None]) -> None:
    def make(recipe: Recipe) -> None:
        report(f"building {recipe.tag}")
        with engine() as client:
            recipe.make(client, recipe)

    with ThreadPoolExecutor(PARALLEL_BUILDS) as builders:
        for _ in builders.map(make, recipes):
            pass


def _flatten(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The recipes and all that they need, once each."""
    found: dict[str, Recipe] = {}
    waiting = list(recipes)
    while waiting:
        recipe = waiting.pop()
        if recipe.tag not in found:
            found[recipe.tag] = recipe
            waiting.extend(recipe.needs)
    return sorted(found.values(), key=lambda recipe: recipe.tag)


def _labelled_images(client: docker.APIClient) -> dict[str, "_Image"]:
    return {
        tag: _Image(id=image["Id"], inputs=image["Labels"][INPUTS_LABEL])
        for image in client.images(filters={"label": INPUTS_LABEL})
        for tag in image["RepoTags"] or ()
    }
