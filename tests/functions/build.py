"""Makes the images of the tests' functions, each folder here being one: `python -m tests.functions.build`."""

import sys
from collections.abc import Callable
from pathlib import Path

from deploy.images import ImageBuildError, busybox_base, ensure, image_from_folder, python_base

FUNCTIONS = Path(__file__).parent


def ensure_images(report: Callable[[str], None] = lambda _line: None) -> dict[str, str]:
    """Make the images that the engine lacks or whose sources have changed; tag by the folder's name.

    Cheap when there is nothing to make (a third of a second). Raises ImageBuildError.
    """
    bases = [busybox_base(), python_base()]
    tags = {path.parent.name: f"faas/test-{path.parent.name}:local" for path in FUNCTIONS.glob("*/Dockerfile")}
    ensure([image_from_folder(FUNCTIONS / name, tag, bases) for name, tag in tags.items()], report)
    return tags


if __name__ == "__main__":
    try:
        ensure_images(report=lambda line: print(line + "\n", end=""))  # one write: two threads report
    except ImageBuildError as error:
        sys.exit(str(error))
