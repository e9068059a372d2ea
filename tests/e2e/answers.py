"""What tests ask of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

__all__ = ["assert_error", "is_warm"]


def assert_error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is this error of the platform's; returns its JSON."""
    assert answer.status_code == status, answer.text
    assert answer.headers["faas-error"] == code
    content: dict[str, Any] = answer.json()
    assert content["error"]["code"] == code
    assert content["error"]["message"]
    assert content["request_id"] == answer.headers["x-call-id"]
    return content


def is_warm(answer: httpx.Response) -> bool:
    """Whether the call ran in a container that was there already."""
    timing = {part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")}
    assert {"queue", "exec"} <= timing
    assert ("warm" in timing) != ("cold" in timing)
    return "warm" in timing
