"""JSON as IronFunctions writes it: UTF-8, `<`, `>` and `&` escaped, a newline at the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JSON_CONTENT_TYPE", "GoJSONResponse", "to_json"]

JSON_CONTENT_TYPE = "application/json; charset=utf-8"

_ESCAPES = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
)


def to_json(value: Any) -> bytes:
    """The value as Go's `json.Encoder` writes it: safe inside HTML, one line, newline at the end.

    Half a surrogate pair, which JSON can say and UTF-8 can't, becomes `?`.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # These five occur in strings only, so the text can be translated as a whole.
    return text.translate(_ESCAPES).encode("utf-8", "replace") + b"\n"


class GoJSONResponse(Response):
    """An answer in that encoding."""

    media_type = "application/json"  # as the API's description names it

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        super().init_headers({"content-type": JSON_CONTENT_TYPE, **(headers or {})})

    def render(self, content: Any) -> bytes:
        return to_json(content)
