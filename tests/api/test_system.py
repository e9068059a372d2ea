"""The operator's side, and what holds for every answer: redirects, 404, JSON's form."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from faas import __version__
from faas.api import system
from faas.errors import ShuttingDownError
from tests.api.fakes import FakeCalls, make_app

if TYPE_CHECKING:
    from faas.api.services import ReadinessCheck
    from faas.catalog import Catalog
    from faas.schedules.schedules import Schedules


async def test_the_root_greets_as_ironfunctions_does(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert response.status_code == 200
    assert response.json() == {"goto": "https://github.com/iron-io/functions", "hello": "world!"}


async def test_the_version_is_outside_v1(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": __version__}


async def test_the_stats_have_ironfunctions_capitals(client: httpx.AsyncClient) -> None:
    assert (await client.get("/stats")).json() == {"Queue": 3, "Running": 2, "Complete": 1}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_living_process_is_healthy_and_ready(client: httpx.AsyncClient, method: str) -> None:
    for address in ("/healthz", "/readyz"):
        assert (await client.request(method, address)).status_code == 200
    assert (await client.get("/readyz")).json() == {"status": "ready", "checks": {"store": "ok"}}


async def get_ready(catalog: Catalog, schedules: Schedules, readiness: dict[str, ReadinessCheck]) -> httpx.Response:
    calls = FakeCalls()
    app = make_app(catalog, schedules, calls, readiness=readiness)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://faas") as client:
        assert (await client.get("/healthz")).status_code == 200
        return await client.get("/readyz")


async def test_a_node_that_can_not_take_work_says_which_part_and_why(
    catalog: Catalog, schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def draining() -> None:
        raise ShuttingDownError

    async def hanging() -> None:
        await asyncio.Event().wait()

    async def telling() -> None:
        raise OSError("postgresql://user:s3cret@host")

    async def fine() -> None:
        pass

    monkeypatch.setattr(system, "READINESS_TIMEOUT_S", 0.01)
    checks = {"node": draining, "engine": hanging, "store": telling, "queue": fine}
    response = await get_ready(catalog, schedules, checks)
    assert response.status_code == 503
    assert response.headers["faas-error"] == "not_ready"
    message = response.json()["error"]["message"]
    assert "node: This node is shutting down" in message
    assert "engine: no answer within" in message
    assert "store: failed" in message
    assert "queue" not in message
    assert "s3cret" not in response.text


async def test_metrics_are_in_prometheus_text_format(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "faas_build_info" in response.text


# --- every answer


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("GET", "/nothing"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/apps/demo"),
        ("POST", "/v1/routes"),
        ("DELETE", "/version"),
        ("OPTIONS", "/v1/apps"),
        ("GET", "//v1/apps"),
    ],
)
async def test_an_unmatched_path_or_method_is_404_with_a_json_string(
    client: httpx.AsyncClient, method: str, address: str
) -> None:
    response = await client.request(method, httpx.URL("http://faas").copy_with(raw_path=address.encode()))
    assert response.status_code == 404
    assert response.content == b'"Not Found"\n'
    assert response.headers["faas-error"] == "not_found"
    assert response.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "address", "status", "location"),
    [
        ("GET", "/v1/apps/", 301, "/v1/apps"),
        ("GET", "/v1/apps/demo/?a=1&b=%20", 301, "/v1/apps/demo?a=1&b=%20"),
        ("POST", "/v1/apps/", 307, "/v1/apps"),
        ("PATCH", "/v1/apps/demo/", 307, "/v1/apps/demo"),
        ("POST", "/v1/apps/demo/routes/", 307, "/v1/apps/demo/routes"),
        ("GET", "/version/", 301, "/version"),
        ("GET", "/v1/apps/%C3%A4%20b/", 301, "/v1/apps/%C3%A4%20b"),
    ],
)
async def test_a_slash_too_many_is_redirected(
    client: httpx.AsyncClient, method: str, address: str, status: int, location: str
) -> None:
    response = await client.request(method, address)
    assert response.status_code == status
    assert response.headers["location"] == location


async def test_a_redirect_never_leaves_the_server(client: httpx.AsyncClient) -> None:
    response = await client.get(httpx.URL("http://faas").copy_with(raw_path=b"//example.com/"))
    assert response.status_code == 404


async def test_json_is_safe_inside_html_and_ends_in_a_newline(client: httpx.AsyncClient) -> None:
    config = {"A": "<b> & \u2028 ä \U0001f600"}
    response = await client.post("/v1/apps", json={"app": {"name": "demo", "config": config}})
    assert b"\\u003cb\\u003e \\u0026 \\u2028 \xc3\xa4" in response.content
    assert response.content.endswith(b"}\n")
    assert response.content.count(b"\n") == 1
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json()["app"]["config"] == config


async def test_a_defect_is_500_and_tells_nothing(catalog: Catalog, calls: FakeCalls, schedules: Schedules) -> None:
    calls.failure = RuntimeError("postgresql://user:s3cret@host")
    app = make_app(catalog, schedules, calls)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://faas") as client:
        response = await client.get("/v1/calls/x")
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "Something unexpected happened on the server",
        "code": "internal",
    }
    assert response.headers["faas-error"] == "internal"


# --- what it says about itself


@pytest.fixture
async def description(client: httpx.AsyncClient) -> dict[str, Any]:
    response = await client.get("/openapi.json")
    assert response.status_code == 200
    described: dict[str, Any] = response.json()
    return described


EXPECTED_OPERATIONS = {
    "GET /", "GET /version", "GET /stats", "GET /healthz", "GET /readyz", "GET /metrics",
    "GET /tasks", "DELETE /tasks",
    "GET /v1/apps", "POST /v1/apps", "GET /v1/apps/{app_name}", "PATCH /v1/apps/{app_name}",
    "DELETE /v1/apps/{app_name}", "GET /v1/routes",
    "GET /v1/apps/{app_name}/routes", "POST /v1/apps/{app_name}/routes",
    "GET /v1/apps/{app_name}/routes/{path}", "PATCH /v1/apps/{app_name}/routes/{path}",
    "DELETE /v1/apps/{app_name}/routes/{path}",
    "GET /v1/apps/{app_name}/schedules", "POST /v1/apps/{app_name}/schedules",
    "GET /v1/apps/{app_name}/schedules/{name}", "PATCH /v1/apps/{app_name}/schedules/{name}",
    "DELETE /v1/apps/{app_name}/schedules/{name}",
    "GET /v1/apps/{app_name}/calls", "GET /v1/calls/{call_id}", "DELETE /v1/calls/{call_id}",
    "GET /v1/calls/{call_id}/deliveries", "POST /v1/calls/{call_id}/deliveries/{number}/redeliver",
    "GET /v1/calls/{call_id}/result", "GET /v1/calls/{call_id}/log",
    "GET /v1/calls/{call_id}/events", "GET /v1/apps/{app_name}/events",
    "POST /v1/apps/{app_name}/calls/cancel", "POST /v1/calls/{call_id}/retry", "GET /v1/apps/{app_name}/dead-letters",
    "POST /v1/apps/{app_name}/dead-letters/redrive", "POST /v1/apps/{app_name}/dead-letters/purge",
    "GET /r/{app_name}/{path}", "POST /r/{app_name}/{path}", "PUT /r/{app_name}/{path}",
    "PATCH /r/{app_name}/{path}", "DELETE /r/{app_name}/{path}", "HEAD /r/{app_name}/{path}",
    "OPTIONS /r/{app_name}/{path}",
}  # fmt: skip


def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }


async def test_the_description_has_every_operation(description: dict[str, Any]) -> None:
    assert set(operations(description)) == EXPECTED_OPERATIONS


async def test_every_operation_has_a_tag_a_summary_an_own_id_and_parameters_of_its_path(
    description: dict[str, Any],
) -> None:
    described = operations(description)
    tags = {tag["name"] for tag in description["tags"]}
    assert len({operation["operationId"] for operation in described.values()}) == len(described)
    for name, operation in described.items():
        assert operation["summary"], name
        assert set(operation["tags"]) <= tags, name
        in_path = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert in_path == {part[1:-1] for part in name.split("/") if part.startswith("{")}, name


async def test_no_operation_promises_the_frameworks_422_and_every_error_is_the_envelope(
    description: dict[str, Any],
) -> None:
    assert "HTTPValidationError" not in description["components"]["schemas"]
    for name, operation in operations(description).items():
        assert ("422" in operation["responses"]) == ("/r/" in name), name  # there it is ours
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                assert "ErrorAnswer" in str(response["content"]["application/json"]["schema"]), (name, status)
                assert "Faas-Error" in response["headers"], (name, status)


async def test_every_reference_of_the_description_leads_somewhere(description: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    found = set(references(description))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in description["components"]["schemas"]


@pytest.mark.parametrize("name", ["concurrency", "min_warm", "freeze_ms", "stream_idle_s"])
async def test_a_described_limit_is_the_one_that_holds(
    client: httpx.AsyncClient, description: dict[str, Any], name: str
) -> None:
    described = description["components"]["schemas"]["RouteRequest"]["properties"][name]
    number, null = described["anyOf"]
    assert null == {"type": "null"}
    assert number["minimum"] == (1 if name == "concurrency" else 0)
    # FastAPI writes limits as fractions.
    maximum = int(number["maximum"])
    route = {"path": "/hello", "image": "hello", "format": "http-stream", name: maximum + 1}
    response = await client.post("/v1/apps/demo/routes", json={"route": route})
    assert f"{name}: {maximum + 1} asked, at most {maximum} is allowed" in response.json()["error"]["message"]


async def test_an_answer_has_exactly_the_described_fields(
    client: httpx.AsyncClient, description: dict[str, Any]
) -> None:
    response = await client.post("/v1/apps/demo/routes", json={"route": {"path": "/hello", "image": "hello"}})
    assert set(response.json()["route"]) == set(description["components"]["schemas"]["RouteView"]["properties"])
    shown = await client.get("/v1/apps/demo")
    assert set(shown.json()["app"]) == set(description["components"]["schemas"]["AppView"]["properties"])
