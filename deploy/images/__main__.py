"""Makes the base images and those of the examples: `python -m deploy.images`."""

import sys
from pathlib import Path

from rich.console import Console

from deploy.images import ImageBuildError, busybox_base, ensure, image_from_folder, python_base

EXAMPLES = Path(__file__).parents[2] / "examples"


def main() -> None:
    """Make what is missing, a line each; exits 1 with the reason when one can't be made."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        bases = [busybox_base(), python_base()]
        folders = sorted(path.parent for path in EXAMPLES.glob("*/Dockerfile"))
        examples = [image_from_folder(folder, f"faas/example-{folder.name}:local", bases) for folder in folders]
        ensure([*bases, *examples], report=console.print)
    except ImageBuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
