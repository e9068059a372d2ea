"""Builds container images from local parts only: no registry is asked for anything.

`python -m deploy.images` makes the base images and the examples; `tests.functions.build` makes the tests' functions
with the same tools. Each image carries the digest of all that went into it, so that a second run builds nothing.
"""

from deploy.images.busybox import busybox_base
from deploy.images.errors import ImageBuildError
from deploy.images.folder import image_from_folder
from deploy.images.python import python_base
from deploy.images.recipe import Recipe, ensure

__all__ = ["ImageBuildError", "Recipe", "busybox_base", "ensure", "image_from_folder", "python_base"]
