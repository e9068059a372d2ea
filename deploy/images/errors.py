"""The one error of this package."""


class ImageBuildError(Exception):
    """An image could not be made; the message says what to do about it."""
