"""`/v1/apps/{app}/routes`: IronFunctions' fields, merge rules, statuses and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

IRONFUNCTIONS_FIELDS = [
    "app_name",
    "path",
    "image",
    "memory",
    "headers",
    "type",
    "format",
    "max_concurrency",
    "timeout",
    "idle_timeout",
    "config",
]


async def create(client: httpx.AsyncClient, *, app: str = "demo", **fields: Any) -> httpx.Response:
    route = {"path": "/hello", "image": "hello", **fields}
    return await client.post(f"/v1/apps/{app}/routes", json={"route": route})


async def patch(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.patch("/v1/apps/demo/routes/hello", json={"route": fields})


async def test_creating_a_route_answers_200_with_its_defaults(client: httpx.AsyncClient) -> None:
    response = await create(client)
    assert response.status_code == 200
    assert response.json()["message"] == "Route successfully created"
    route = response.json()["route"]
    assert route == {
        "app_name": "demo",
        "path": "/hello",
        "image": "hello",
        "memory": 128,
        "headers": {},
        "type": "sync",
        "format": "default",
        "max_concurrency": 0,
        "timeout": 30,
        "idle_timeout": 30,
        "config": {},
        "has_jwt_key": False,
        "cpus": 0.0,
        "concurrency": 1,
        "min_warm": 0,
        "freeze_ms": 0,
        "stream_idle_s": 0,
        "retries": None,
        "webhooks": None,
        "pull": "missing",
        "image_digest": "sha256:hello",
        "created_at": route["created_at"],
        "updated_at": route["updated_at"],
    }


async def test_ironfunctions_fields_come_first_and_in_its_order(client: httpx.AsyncClient) -> None:
    route = (await create(client)).json()["route"]
    assert list(route)[: len(IRONFUNCTIONS_FIELDS)] == IRONFUNCTIONS_FIELDS


async def test_zero_and_empty_mean_the_default_as_go_clients_send_them(client: httpx.AsyncClient) -> None:
    response = await create(
        client, memory=0, type="", format="", max_concurrency=0, timeout=0, idle_timeout=0, config=None, headers=None
    )
    route = response.json()["route"]
    assert (route["memory"], route["timeout"], route["idle_timeout"]) == (128, 30, 30)
    assert (route["type"], route["format"]) == ("sync", "default")


async def test_what_is_asked_for_is_kept(client: httpx.AsyncClient) -> None:
    asked = {
        "memory": 256,
        "cpus": 0.5,
        "headers": {"X-A": ["1", "2"]},
        "type": "async",
        "format": "http-stream",
        "max_concurrency": 4,
        "concurrency": 8,
        "min_warm": 2,
        "freeze_ms": 500,
        "stream_idle_s": 10,
        "retries": {
            "max": 5,
            "backoff": "fixed",
            "delay_s": 0.5,
            "max_delay_s": 60.0,
            "jitter": 0.0,
            "on": ["timeout", 502],
        },
        "timeout": 60,
        "idle_timeout": 90,
        "pull": "never",
        "config": {"A": "1"},
    }
    route = (await create(client, **asked)).json()["route"]
    assert {name: route[name] for name in asked} == asked


async def test_retries_have_defaults_and_go_away_with_null(client: httpx.AsyncClient) -> None:
    retries = (await create(client, retries={"max": 3, "delay_s": 600})).json()["route"]["retries"]
    assert (retries["backoff"], retries["jitter"]) == ("exponential", 0.5)
    assert retries["max_delay_s"] == retries["delay_s"] == 600
    assert {"timeout", "oom", "bad_exit"} < set(retries["on"])
    assert (await patch(client, memory=64)).json()["route"]["retries"] == retries
    assert (await patch(client, retries=None)).json()["route"]["retries"] is None


@pytest.mark.parametrize(
    ("retries", "message"),
    [
        ({"max": 0}, "retries.max: 0 asked, 1 to 100 are allowed"),
        ({"max": 101}, "retries.max: 101 asked"),
        ({}, "retries.max: Field required"),
        ({"max": 1, "backoff": "linear"}, "retries.backoff: should be 'fixed' or 'exponential'"),
        ({"max": 1, "delay_s": -1}, "retries.delay_s: -1 asked, 0 to 86400 is allowed"),
        ({"max": 1, "delay_s": 5, "max_delay_s": 1}, "retries.max_delay_s: 1 is less than delay_s, 5"),
        ({"max": 1, "jitter": 2}, "retries.jitter: 2 asked, 0 to 1 is allowed"),
        ({"max": 1, "on": []}, "retries.on: empty"),
        ({"max": 1, "on": ["client_request"]}, "retries.on: 'client_request' is no error status (400 to 599)"),
        ({"max": 1, "on": [200]}, "retries.on: 200 is no error status"),
    ],
)
async def test_retries_that_can_not_be_are_400_and_say_why(
    client: httpx.AsyncClient, retries: dict[str, Any], message: str
) -> None:
    response = await create(client, retries=retries)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_creating_a_route_makes_its_app(client: httpx.AsyncClient) -> None:
    await create(client, app="new")
    assert (await client.get("/v1/apps/new")).status_code == 200


async def test_a_bad_name_of_the_app_to_make_is_400(client: httpx.AsyncClient) -> None:
    response = await create(client, app="a%20b")
    assert response.status_code == 400
    assert "Invalid app name" in response.json()["error"]["message"]


async def test_the_app_in_the_url_wins_over_the_one_in_the_body(client: httpx.AsyncClient) -> None:
    assert (await create(client, app_name="other")).json()["route"]["app_name"] == "demo"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": ""}, "Missing route Image"),
        ({"image": None}, "Missing route Image"),
        ({"path": ""}, "Missing route Path"),
        ({"path": None}, "Missing route Path"),
        ({"path": "/a\x01"}, "Path malformed"),
        ({"path": "/a/:b"}, "Dynamic URL is not allowed"),
        ({"path": "a"}, "Invalid Path format"),
        ({"type": "soon"}, "Invalid route Type"),
        ({"format": "xml"}, "Invalid route Format"),
        ({"max_concurrency": -1}, "Negative MaxConcurrency"),
        ({"concurrency": -1, "format": "http-stream"}, "Concurrency must be at least 1"),
        ({"concurrency": 2, "format": "http"}, "concurrency: only containers of format http-stream"),
        ({"concurrency": 1001, "format": "http-stream"}, "concurrency: 1001 asked, at most 1000 is allowed"),
        ({"min_warm": -1, "format": "http"}, "Negative min_warm"),
        ({"min_warm": 1, "format": "default"}, "min_warm: format default has no containers to keep"),
        ({"min_warm": 3, "max_concurrency": 2, "format": "http"}, "min_warm: more than max_concurrency allows"),
        (
            {"min_warm": 5, "memory": 256, "format": "http"},
            "min_warm: 5 containers of 256 MiB asked, this node has 1024",
        ),
        ({"freeze_ms": -1, "format": "http"}, "Negative freeze_ms"),
        ({"freeze_ms": 1, "format": "default"}, "freeze_ms: format default has no containers to pause"),
        ({"stream_idle_s": -1}, "Negative stream_idle_s"),
        ({"timeout": -1}, "Negative timeout"),
        ({"idle_timeout": -1}, "Negative idle timeout"),
        ({"memory": 2048}, "memory: 2048 MiB asked, this node has 1024 MiB"),
        ({"memory": 10**30}, "memory: 1000000000000000000000000000000 MiB asked"),
    ],
)
async def test_a_bad_value_is_400_with_ironfunctions_words(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    response = await create(client, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "validation_failed"
    assert error["message"].startswith(f"validation failure list:\nvalidation failure list:\n{message}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory": "128"}, "route.memory: should be a valid integer"),
        ({"memory": 128.5}, "route.memory: should be a valid integer"),
        ({"memory": True}, "route.memory: should be a valid integer"),
        ({"cpus": "1"}, "route.cpus: should be a valid number"),
        ({"timeout": []}, "route.timeout: should be a valid integer"),
        ({"path": 5}, "route.path: should be a valid string"),
        ({"headers": {"X-A": "1"}}, "route.headers.X-A: should be a valid list"),
        ({"headers": {"X-A": [1]}}, "route.headers.X-A.0: should be a valid string"),
        ({"config": {"A": 1}}, "route.config.A: should be a valid string"),
    ],
)
async def test_a_wrong_type_is_400_and_names_the_field(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    for response in (await create(client, **fields), await patch(client, **fields)):
        assert response.status_code == 400
        assert message in response.json()["error"]["message"]


async def test_numbers_that_are_none_are_refused(client: httpx.AsyncClient) -> None:
    for number in (b"NaN", b"Infinity"):
        body = b'{"route": {"path": "/hello", "image": "hello", "cpus": %s}}' % number
        response = await client.post("/v1/apps/demo/routes", content=body)
        assert response.status_code == 400


async def test_a_wrong_value_is_not_repeated_because_it_may_be_secret(client: httpx.AsyncClient) -> None:
    response = await create(client, jwt_key=["s3cret"], config={"A": ["s3cret"]})
    assert response.status_code == 400
    assert "s3cret" not in response.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
async def test_a_body_that_is_no_json_object_is_invalid_json(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/apps/demo/routes", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Invalid JSON"


async def test_a_body_without_a_route_is_missing_it(client: httpx.AsyncClient) -> None:
    for response in (
        await client.post("/v1/apps/demo/routes", json={}),
        await client.patch("/v1/apps/demo/routes/hello", json={"route": None}),
    ):
        assert response.status_code == 400
        assert response.json()["error"]["message"] == "Missing new route"


async def test_an_image_that_can_not_be_had_is_400_with_the_engines_words(client: httpx.AsyncClient) -> None:
    response = await create(client, image="missing")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "image_not_found"
    assert "pull access denied" in response.json()["error"]["message"]
    assert (await client.get("/v1/apps")).json()["apps"] == []


async def test_a_duplicate_is_409_also_when_it_is_spelled_differently(client: httpx.AsyncClient) -> None:
    await create(client)
    for path in ("/hello", "/hello/", "//hello", "/x/../hello"):
        response = await create(client, path=path)
        assert response.status_code == 409
        assert response.json()["error"] == {"message": "Route already exists", "code": "route_exists"}


async def test_a_path_with_a_slash_at_its_end_can_be_reached(client: httpx.AsyncClient) -> None:
    assert (await create(client, path="/a/b/")).json()["route"]["path"] == "/a/b"
    for path in ("/a/b", "/a/b/", "//a/./b"):
        response = await client.get(f"/v1/apps/demo/routes{path}")
        assert response.status_code == 200
        assert response.json()["route"]["path"] == "/a/b"


async def test_the_root_path_can_be_a_route(client: httpx.AsyncClient) -> None:
    await create(client, path="/")
    response = await client.get("/v1/apps/demo/routes/")
    assert response.json()["route"]["path"] == "/"
    assert (await client.delete("/v1/apps/demo/routes/")).status_code == 200


async def test_a_star_in_a_path_is_a_letter_like_any_other(client: httpx.AsyncClient) -> None:
    assert (await create(client, path="/a*b")).status_code == 200
    assert (await client.get("/v1/apps/demo/routes/a*b")).status_code == 200


async def test_the_jwt_key_is_never_shown(client: httpx.AsyncClient) -> None:
    answers = [
        await create(client, jwt_key="s3cret"),
        await client.get("/v1/apps/demo/routes/hello"),
        await client.get("/v1/apps/demo/routes"),
        await client.get("/v1/routes"),
        await patch(client, timeout=5),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert "s3cret" not in answer.text
        assert "has_jwt_key" in answer.text
    assert answers[-1].json()["route"]["has_jwt_key"] is True


async def test_a_route_is_shown(client: httpx.AsyncClient) -> None:
    created = (await create(client)).json()["route"]
    response = await client.get("/v1/apps/demo/routes/hello")
    assert response.status_code == 200
    assert response.json() == {"message": "Successfully loaded route", "route": created}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_route_is_404(client: httpx.AsyncClient, method: str) -> None:
    await client.post("/v1/apps", json={"app": {"name": "demo"}})
    for app, message, code in (
        ("demo", "Route not found", "route_not_found"),
        ("nobody", "App not found", "app_not_found"),
    ):
        response = await client.request(method, f"/v1/apps/{app}/routes/x", json={"route": {"timeout": 5}})
        assert response.status_code == 404
        assert response.json() == {"error": {"message": message, "code": code}}


async def test_routes_are_listed_by_app_and_path_with_ironfunctions_spelling(client: httpx.AsyncClient) -> None:
    await create(client, app="b", path="/1")
    await create(client, app="a", path="/2")
    await create(client, app="a", path="/1")
    body = (await client.get("/v1/routes")).json()
    assert body["message"] == "Sucessfully listed routes"
    assert [(route["app_name"], route["path"]) for route in body["routes"]] == [("a", "/1"), ("a", "/2"), ("b", "/1")]
    body = (await client.get("/v1/apps/a/routes")).json()
    assert body["message"] == "Sucessfully listed routes"
    assert [route["path"] for route in body["routes"]] == ["/1", "/2"]


async def test_the_list_of_an_unknown_app_is_empty(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/apps/nobody/routes")
    assert response.status_code == 200
    assert response.json()["routes"] == []


async def test_lists_can_be_narrowed_to_exactly_one_image(client: httpx.AsyncClient) -> None:
    await create(client, path="/1", image="x")
    await create(client, path="/2", image="x:latest")
    for address in ("/v1/routes", "/v1/apps/demo/routes"):
        response = await client.get(address, params={"image": "x"})
        assert [route["path"] for route in response.json()["routes"]] == ["/1"]
        assert len((await client.get(address, params={"image": ""})).json()["routes"]) == 2


@pytest.mark.parametrize("path", ["/hello", "/other"])
async def test_a_path_in_a_change_is_refused_even_when_it_is_the_same(client: httpx.AsyncClient, path: str) -> None:
    await create(client)
    response = await patch(client, path=path)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Could not update route - path is immutable"


async def test_a_change_replaces_what_it_says_and_nothing_else(client: httpx.AsyncClient) -> None:
    before = (await create(client, timeout=60, config={"A": "1"}, jwt_key="k")).json()["route"]
    response = await patch(client, memory=256, timeout=0, image="", type="", config=None, headers=None)
    assert response.status_code == 200
    assert response.json()["message"] == "Route successfully updated"
    after = response.json()["route"]
    assert after == before | {"memory": 256, "updated_at": after["updated_at"]}


async def test_a_change_merges_the_config_and_replaces_header_values(client: httpx.AsyncClient) -> None:
    await create(client, config={"A": "1", "B": "2"}, headers={"X-A": ["1"], "X-B": ["1"], "X-C": ["1"], "X-D": ["1"]})
    changes = {"config": {"B": "", "C": "3"}, "headers": {"X-B": ["2", "3"], "X-C": [], "X-D": None}}
    route = (await patch(client, **changes)).json()["route"]
    assert route["config"] == {"A": "1", "C": "3"}
    assert route["headers"] == {"X-A": ["1"], "X-B": ["2", "3"]}


async def test_null_puts_a_value_back_to_its_default(client: httpx.AsyncClient) -> None:
    await create(client, timeout=60, max_concurrency=3, idle_timeout=5, jwt_key="k", format="http")
    route = (
        await patch(client, timeout=None, max_concurrency=None, idle_timeout=None, jwt_key=None, format=None)
    ).json()["route"]
    assert (route["timeout"], route["max_concurrency"], route["idle_timeout"]) == (30, 0, 30)
    assert (route["has_jwt_key"], route["format"]) == (False, "default")


async def test_a_change_says_how_containers_are_kept_and_null_puts_that_back(client: httpx.AsyncClient) -> None:
    fields = {"concurrency": 8, "min_warm": 1, "freeze_ms": 5, "stream_idle_s": 6}
    await create(client, format="http-stream")
    for given, expected in (
        (fields, [8, 1, 5, 6]),
        (dict.fromkeys(fields, 0), [8, 1, 5, 6]),
        ({"min_warm": None}, [8, 0, 5, 6]),
        (dict.fromkeys(fields), [1, 0, 0, 0]),
    ):
        route = (await patch(client, **given)).json()["route"]
        assert [route[name] for name in fields] == expected


async def test_a_change_whose_image_can_not_be_had_is_400_and_nothing_changes(client: httpx.AsyncClient) -> None:
    before = (await create(client)).json()["route"]
    response = await patch(client, image="missing", timeout=5)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "image_not_found"
    assert "pull access denied" in response.json()["error"]["message"]
    assert (await client.get("/v1/apps/demo/routes/hello")).json()["route"] == before


async def test_an_answer_can_be_sent_back_as_a_change(client: httpx.AsyncClient) -> None:
    route = (await create(client, config={"A": "1"}, headers={"X-A": ["1"]}, jwt_key="k")).json()["route"]
    changed = await patch(client, **{name: value for name, value in route.items() if name != "path"})
    assert changed.status_code == 200
    assert changed.json()["route"] == route | {"updated_at": changed.json()["route"]["updated_at"]}


async def test_a_bad_value_in_a_change_is_400(client: httpx.AsyncClient) -> None:
    await create(client)
    response = await patch(client, timeout=-1)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "validation failure list:\nvalidation failure list:\nNegative timeout"
    )


async def test_a_route_is_deleted(client: httpx.AsyncClient) -> None:
    await create(client)
    response = await client.delete("/v1/apps/demo/routes/hello/")
    assert response.status_code == 200
    assert response.json() == {"message": "Route deleted"}
    assert (await client.get("/v1/apps/demo/routes/hello")).status_code == 404
