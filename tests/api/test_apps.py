"""`/v1/apps`: IronFunctions' statuses, envelopes and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx


async def create(client: httpx.AsyncClient, name: str = "demo", **fields: Any) -> httpx.Response:
    return await client.post("/v1/apps", json={"app": {"name": name, **fields}})


async def test_creating_an_app_answers_200_with_the_app(client: httpx.AsyncClient) -> None:
    response = await create(client, config={"A": "1"})
    assert response.status_code == 200
    body = response.json()
    assert body["message"] == "App successfully created"
    assert (body["app"]["name"], body["app"]["config"]) == ("demo", {"A": "1"})
    assert body["app"]["created_at"].endswith("Z")


async def test_an_apps_config_is_null_when_empty_and_routes_are_left_out(client: httpx.AsyncClient) -> None:
    app = (await create(client)).json()["app"]
    assert app["config"] is None
    assert "routes" not in app


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"5", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_invalid_json(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/apps", content=body)
    assert response.status_code == 400
    assert response.json() == {"error": {"message": "Invalid JSON", "code": "invalid_json"}}
    assert response.headers["faas-error"] == "invalid_json"
    assert response.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("body", [b"{}", b'{"app": null}', b'{"name": "demo"}'])
async def test_a_body_without_an_app_is_missing_it(client: httpx.AsyncClient, body: bytes) -> None:
    for response in (await client.post("/v1/apps", content=body), await client.patch("/v1/apps/demo", content=body)):
        assert response.status_code == 400
        assert response.json()["error"]["message"] == "Missing new application"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Missing app name"),
        (None, "Missing app name"),
        ("x" * 31, "App name must be 30 characters or less"),
        ("a b", "Invalid app name"),
    ],
)
async def test_a_bad_name_is_400_with_ironfunctions_words(
    client: httpx.AsyncClient, name: str | None, message: str
) -> None:
    response = await client.post("/v1/apps", json={"app": {"name": name}})
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": f"validation failure list:\n{message}",
        "code": "validation_failed",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": 5}, "app.name: should be a valid string"),
        ({"name": "demo", "config": []}, "app.config: should be a valid dictionary"),
        ({"name": "demo", "config": {"A": 1}}, "app.config.A: should be a valid string"),
        ({"name": "demo", "config": {"A": None}}, "app.config.A: should be a valid string"),
        ("text", "app: should be"),
    ],
)
async def test_a_wrong_type_is_400_and_names_the_field(client: httpx.AsyncClient, fields: Any, message: str) -> None:
    response = await client.post("/v1/apps", json={"app": fields})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "validation_failed"
    assert message in response.json()["error"]["message"]


async def test_half_a_surrogate_pair_is_no_text(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/apps", content=rb'{"app": {"name": "demo", "config": {"A": "\ud800"}}}')
    assert response.status_code == 400
    assert "config: the value of A" in response.json()["error"]["message"]


async def test_unknown_fields_are_passed_over(client: httpx.AsyncClient) -> None:
    assert (await create(client, routes=[], colour="red")).status_code == 200


async def test_an_answer_can_be_sent_back_as_a_change(client: httpx.AsyncClient) -> None:
    app = (await create(client, config={"A": "1"})).json()["app"]
    del app["name"]
    response = await client.patch("/v1/apps/demo", json={"app": app})
    assert response.json()["app"]["config"] == {"A": "1"}


async def test_the_content_type_of_a_body_does_not_matter(client: httpx.AsyncClient) -> None:
    for number, label in enumerate(("application/x-www-form-urlencoded", "text/plain", "multipart/form-data")):
        content = b'{"app": {"name": "demo%d"}}' % number
        response = await client.post("/v1/apps", content=content, headers={"content-type": label})
        assert response.status_code == 200


async def test_a_duplicate_is_409(client: httpx.AsyncClient) -> None:
    await create(client)
    response = await create(client)
    assert response.status_code == 409
    assert response.json()["error"] == {"message": "App already exists", "code": "app_exists"}


async def test_an_app_is_shown(client: httpx.AsyncClient) -> None:
    await create(client)
    response = await client.get("/v1/apps/demo")
    assert response.status_code == 200
    assert response.json()["message"] == "Successfully loaded app"
    assert response.json()["app"]["name"] == "demo"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_app_is_404(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "/v1/apps/nobody", json={"app": {}})
    assert response.status_code == 404
    assert response.json() == {"error": {"message": "App not found", "code": "app_not_found"}}
    assert response.headers["faas-error"] == "app_not_found"


async def test_apps_are_listed(client: httpx.AsyncClient) -> None:
    empty = (await client.get("/v1/apps")).json()
    assert empty == {"message": "Successfully listed applications", "apps": []}
    await create(client, "b")
    await create(client, "a")
    listed = (await client.get("/v1/apps")).json()
    assert [app["name"] for app in listed["apps"]] == ["a", "b"]


@pytest.mark.parametrize("name", ["demo", "other"])
async def test_a_name_in_a_change_is_refused_even_when_it_is_the_same(client: httpx.AsyncClient, name: str) -> None:
    await create(client)
    response = await client.patch("/v1/apps/demo", json={"app": {"name": name}})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Could not update app - name is immutable"


async def test_a_change_merges_the_config_and_an_empty_value_deletes(client: httpx.AsyncClient) -> None:
    await create(client, config={"KEEP": "1", "DROP": "2"})
    response = await client.patch("/v1/apps/demo", json={"app": {"config": {"DROP": "", "NEW": "3"}}})
    assert response.status_code == 200
    assert response.json()["message"] == "App successfully updated"
    assert response.json()["app"]["config"] == {"KEEP": "1", "NEW": "3"}


async def test_put_is_not_a_verb_here(client: httpx.AsyncClient) -> None:
    response = await client.put("/v1/apps/demo", json={"app": {}})
    assert response.status_code == 404
    assert response.json() == "Not Found"


async def test_an_app_with_routes_is_not_deleted(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps/demo/routes", json={"route": {"path": "/hello", "image": "hello"}})
    response = await client.delete("/v1/apps/demo")
    assert response.status_code == 400
    assert response.json()["error"] == {"message": "Cannot remove apps with routes", "code": "app_has_routes"}


async def test_an_app_is_deleted(client: httpx.AsyncClient) -> None:
    await create(client)
    response = await client.delete("/v1/apps/demo")
    assert response.status_code == 200
    assert response.json() == {"message": "App deleted"}
    assert (await client.get("/v1/apps/demo")).status_code == 404
