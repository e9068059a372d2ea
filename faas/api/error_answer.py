"""The one place that turns an error into HTTP: status, `Faas-Error` header, JSON envelope.

The data plane answers with it too, also in processes that have no web framework: it stands on none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faas.api.encoding import JSON_CONTENT_TYPE, to_json
from faas.errors import UnauthorizedError
from faas.models import CallResult

if TYPE_CHECKING:
    from faas.errors import FaasError

__all__ = ["error_body", "error_headers", "render_error"]


def error_body(error: FaasError, request_id: str | None = None) -> bytes:
    """The envelope; errors of a run carry the call's id as `request_id`."""
    content: dict[str, Any] = {"error": {"message": error.message, "code": error.code}}
    if request_id is not None:
        content["request_id"] = request_id
    return to_json(content)


def error_headers(error: FaasError) -> list[tuple[bytes, bytes]]:
    """All headers of the answer but its length; names are lower-case."""
    headers = [
        (b"content-type", JSON_CONTENT_TYPE.encode()),
        (b"faas-error", error.code.encode()),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b'Bearer realm=""'))
    return headers


def render_error(error: FaasError, call_id: str) -> CallResult:
    """What a sync caller gets to see of an error, as a result that can be kept."""
    return CallResult(
        status_code=error.http_status,
        headers=tuple(error_headers(error)),
        body=error_body(error, call_id),
    )
