"""A typed client of the public API: one method an operation, every failure a `ClientError`."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict

import httpx

from faas import __version__
from faas.cli.errors import ClientError, UnreachableError, from_answer
from faas.cli.server_events import parse
from faas.cli.urls import app_url, call_url, route_url, schedule_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from faas.cli.server_events import ServerEvent

__all__ = ["AppJSON", "BulkJSON", "CallJSON", "CallPage", "FaasClient", "RouteJSON", "ScheduleJSON"]

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 900.0
"""A route's image may have to be pulled before the server answers."""
SILENCE_S = 60.0
"""A stream of events says something every 15 s; a longer silence is a broken connection."""
LONG_POLL_SLACK_S = 15.0
"""What a long poll may take beyond the wait that was asked for."""

_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")


class AppJSON(TypedDict, total=False):
    """An app as the API writes it."""

    name: str
    config: dict[str, str] | None
    created_at: str | None
    updated_at: str | None


class RouteJSON(TypedDict, total=False):
    """A route as the API writes it; also the fields that create and update send."""

    app_name: str
    path: str
    image: str
    memory: int
    cpus: float
    type: str
    format: str
    max_concurrency: int
    concurrency: int
    min_warm: int
    freeze_ms: int
    stream_idle_s: int
    retries: dict[str, Any] | None
    timeout: int
    idle_timeout: int
    pull: str
    config: dict[str, str]
    headers: dict[str, list[str]]
    jwt_key: str
    """Sent, and told by IronFunctions; this server only says `has_jwt_key`."""
    has_jwt_key: bool
    image_digest: str
    created_at: str | None
    updated_at: str | None


class CallResultJSON(TypedDict, total=False):
    """A result without its body."""

    status_code: int
    content_type: str
    size_bytes: int


class CallJSON(TypedDict, total=False):
    """A call's record as the API writes it."""

    id: str
    app_name: str
    path: str
    type: str
    status: str
    reason: str | None
    error: str | None
    created_at: str | None
    started_at: str | None
    completed_at: str | None
    attempts: list[dict[str, Any]]
    retry_of: str | None
    retried_by: str | None
    retries: int
    is_dead_letter: bool
    schedule: str | None
    result: CallResultJSON | None
    usage: dict[str, Any] | None


class ScheduleJSON(TypedDict, total=False):
    """A schedule as the API writes it; also the fields that create and update send."""

    app_name: str
    name: str
    path: str
    cron: str | None
    interval_s: int | None
    timezone: str
    request: dict[str, Any]
    priority: int
    enabled: bool
    missed: str
    overlap: str
    next: list[str]
    last_at: str | None
    last_call_id: str | None
    created_at: str | None
    updated_at: str | None


class CallPage(TypedDict):
    """Some of an app's calls, newest first; `next_cursor` is empty on the last page."""

    calls: list[CallJSON]
    next_cursor: str


class BulkJSON(TypedDict):
    """What was done about a page of calls."""

    count: int
    skipped: int
    next_cursor: NotRequired[str | None]


class FaasClient:
    """The public API of one server. `authorization` makes the bearer token of a request, empty for none."""

    def __init__(self, url: str, *, authorization: Callable[[], str], is_verifying_tls: bool = True) -> None:
        self.url = url.rstrip("/")
        self._authorization = authorization
        self._http = httpx.Client(
            verify=is_verifying_tls,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            headers={"user-agent": f"faas/{__version__}", "accept-encoding": "identity"},
            # A proxy from the environment must not be asked for this machine.
            mounts=dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # --- apps

    def list_apps(self) -> list[AppJSON]:
        """All apps."""
        apps: list[AppJSON] = self._json("GET", "/v1/apps", "apps")
        return apps

    def get_app(self, name: str) -> AppJSON:
        """One app."""
        app: AppJSON = self._json("GET", app_url(name), "app")
        return app

    def create_app(self, app: AppJSON) -> AppJSON:
        """Make an app; the answer is as it was stored."""
        created: AppJSON = self._json("POST", "/v1/apps", "app", body={"app": app})
        return created

    def update_app(self, name: str, app: AppJSON) -> AppJSON:
        """Merge fields into an app; a config key with an empty value is deleted."""
        updated: AppJSON = self._json("PATCH", app_url(name), "app", body={"app": app})
        return updated

    def delete_app(self, name: str) -> None:
        """Delete an app that has no routes."""
        self._request("DELETE", app_url(name))

    # --- routes

    def list_routes(self, app: str, *, image: str = "") -> list[RouteJSON]:
        """An app's routes, all or those of exactly this image."""
        routes: list[RouteJSON] = self._json(
            "GET", f"{app_url(app)}/routes", "routes", query={"image": image} if image else None
        )
        return routes

    def get_route(self, app: str, path: str) -> RouteJSON:
        """One route."""
        route: RouteJSON = self._json("GET", route_url(app, path), "route")
        return route

    def create_route(self, app: str, route: RouteJSON) -> RouteJSON:
        """Make a route; the server makes sure of its image first, which can take long."""
        created: RouteJSON = self._json(
            "POST", f"{app_url(app)}/routes", "route", body={"route": route}, timeout_s=PULL_TIMEOUT_S
        )
        return created

    def update_route(self, app: str, path: str, route: RouteJSON) -> RouteJSON:
        """Merge fields into a route."""
        updated: RouteJSON = self._json(
            "PATCH", route_url(app, path), "route", body={"route": route}, timeout_s=PULL_TIMEOUT_S
        )
        return updated

    def delete_route(self, app: str, path: str) -> None:
        """Delete a route."""
        self._request("DELETE", route_url(app, path))

    # --- schedules

    def list_schedules(self, app: str) -> list[ScheduleJSON]:
        """An app's schedules."""
        schedules: list[ScheduleJSON] = self._json("GET", f"{app_url(app)}/schedules", "schedules")
        return schedules

    def get_schedule(self, app: str, name: str) -> ScheduleJSON:
        """One schedule."""
        schedule: ScheduleJSON = self._json("GET", schedule_url(app, name), "schedule")
        return schedule

    def create_schedule(self, app: str, schedule: ScheduleJSON) -> ScheduleJSON:
        """Make a schedule."""
        created: ScheduleJSON = self._json("POST", f"{app_url(app)}/schedules", "schedule", body={"schedule": schedule})
        return created

    def update_schedule(self, app: str, name: str, schedule: ScheduleJSON) -> ScheduleJSON:
        """Merge fields into a schedule."""
        updated: ScheduleJSON = self._json("PATCH", schedule_url(app, name), "schedule", body={"schedule": schedule})
        return updated

    def delete_schedule(self, app: str, name: str) -> None:
        """Delete a schedule."""
        self._request("DELETE", schedule_url(app, name))

    # --- calls

    def list_calls(self, app: str, query: Mapping[str, str]) -> CallPage:
        """A page of an app's calls; `query` may have status, path, since, until, cursor, per_page."""
        return _page(self._request("GET", f"{app_url(app)}/calls", query=query))

    def get_call(self, call_id: str, *, wait_s: float = 0) -> CallJSON:
        """A call's record; with `wait_s` as soon as it has ended, or as it is after so long."""
        call: CallJSON = self._json(
            "GET",
            call_url(call_id),
            "call",
            query={"wait": f"{wait_s:g}"} if wait_s else None,
            timeout_s=wait_s + LONG_POLL_SLACK_S if wait_s else ANSWER_TIMEOUT_S,
        )
        return call

    def cancel_call(self, call_id: str) -> CallJSON:
        """End a call: a queued one never runs, a running one's container is killed; an ended one stays as it is."""
        call: CallJSON = self._json("DELETE", call_url(call_id), "call")
        return call

    def retry_call(self, call_id: str) -> CallJSON:
        """Run an ended call again; the record of the new one."""
        call: CallJSON = self._json("POST", f"{call_url(call_id)}/retry", "call")
        return call

    # --- many calls; `query` may have path, since, until, cursor, limit, and status or reason

    def cancel_calls(self, app: str, query: Mapping[str, str]) -> BulkJSON:
        """End a page of an app's async calls that have not ended."""
        return self._bulk(f"{app_url(app)}/calls/cancel", query)

    def list_dead_letters(self, app: str, query: Mapping[str, str]) -> CallPage:
        """A page of an app's calls whose retries are exhausted."""
        return _page(self._request("GET", f"{app_url(app)}/dead-letters", query=query))

    def redrive(self, app: str, query: Mapping[str, str]) -> BulkJSON:
        """Run a page of an app's dead letters again."""
        return self._bulk(f"{app_url(app)}/dead-letters/redrive", query)

    def purge_dead_letters(self, app: str, query: Mapping[str, str]) -> BulkJSON:
        """Delete a page of an app's dead letters."""
        return self._bulk(f"{app_url(app)}/dead-letters/purge", query)

    def _bulk(self, path: str, query: Mapping[str, str]) -> BulkJSON:
        answer = _object(self._request("POST", path, query=query))
        return {
            "count": answer.get("count", 0),
            "skipped": answer.get("skipped", 0),
            "next_cursor": answer.get("next_cursor"),
        }

    @contextmanager
    def open_result(self, call_id: str) -> Iterator[httpx.Response]:
        """What the sync caller would have got, status and headers included, its body not yet read.

        An error that the platform made is an answer here, too: `Faas-Error` marks it.
        """
        with self._stream("GET", f"{call_url(call_id)}/result") as answer:
            yield answer

    @contextmanager
    def open_log(
        self, call_id: str, *, is_following: bool = False, attempt: int | None = None
    ) -> Iterator[httpx.Response]:
        """A call's log, or that of one attempt, its body not yet read; following goes on until the call has ended."""
        query = {"follow": "true"} if is_following else {}
        if attempt is not None:
            query["attempt"] = str(attempt)
        with self._stream("GET", f"{call_url(call_id)}/log", query=query) as answer:
            if not answer.is_success:
                answer.read()
                raise from_answer(answer.status_code, answer.content, url=self.url)
            yield answer

    # --- what happens to calls

    def events(self, path: str, *, last_event_id: str = "") -> Iterator[ServerEvent]:
        """The events of a stream as they come, those after one that was received; ends with the server's last word."""
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        with self._stream("GET", path, headers=headers, silence_s=SILENCE_S) as answer:
            if not answer.is_success:
                answer.read()
                raise from_answer(answer.status_code, answer.content, url=self.url)
            yield from parse(answer.iter_raw())

    # --- the server

    def server_version(self) -> str:
        """The server's version."""
        return str(_object(self._request("GET", "/version")).get("version", ""))

    # --- how a request is made

    def _json(
        self,
        method: str,
        path: str,
        key: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Any:
        """The part of a JSON answer that the operation is about."""
        answer = self._request(method, path, body=body, query=query, timeout_s=timeout_s)
        try:
            return _object(answer)[key]
        except KeyError:
            raise ClientError(
                f"The answer of {answer.url} has no `{key}`: is that a faas server?", code="not_faas"
            ) from None

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._translated():
            answer = self._http.request(
                method, self.url + path, params=query, json=body, headers=self._headers(), timeout=timeout
            )
        if not answer.is_success:
            raise from_answer(answer.status_code, answer.content, url=self.url)
        return answer

    @contextmanager
    def _stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float | None = None,
    ) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S, read=silence_s)
        with (
            self._translated(),
            self._http.stream(
                method, self.url + path, params=query, headers={**self._headers(), **(headers or {})}, timeout=timeout
            ) as answer,
        ):
            yield answer

    def _headers(self) -> dict[str, str]:
        token = self._authorization()
        return {"authorization": f"Bearer {token}"} if token else {}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ClientError(f"'{self.url}' is no URL of a server: {error}", code="bad_url") from error
        except httpx.TimeoutException as error:
            raise UnreachableError(self.url, "no answer in time") from error
        except httpx.TransportError as error:
            raise UnreachableError(self.url, _ERRNO.sub("", str(error)) or type(error).__name__) from error


def _page(answer: httpx.Response) -> CallPage:
    page = _object(answer)
    return {"calls": page.get("calls") or [], "next_cursor": page.get("next_cursor") or ""}


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        value = None
    if not isinstance(value, dict):
        raise ClientError(f"{answer.url} answered something other than JSON: is that a faas server?", code="not_faas")
    return value
