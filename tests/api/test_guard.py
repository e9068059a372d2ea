"""The whole control API behind the service's token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from faas.auth.route_token import make_token
from tests.api.fakes import make_app

if TYPE_CHECKING:
    from faas.catalog import Catalog
    from faas.schedules.schedules import Schedules
    from tests.api.fakes import FakeCalls

KEY = "service-key"


async def test_every_operation_of_v1_and_tasks_wants_a_token_and_says_so(
    catalog: Catalog, calls: FakeCalls, schedules: Schedules
) -> None:
    app = make_app(catalog, schedules, calls, jwt_auth_key=KEY)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://faas") as client:
        description = (await client.get("/openapi.json")).json()
        guarded = 0
        for path, methods in description["paths"].items():
            if path.startswith("/r/"):
                continue
            for method, operation in methods.items():
                is_guarded = path.startswith(("/v1", "/tasks"))
                guarded += is_guarded
                assert ("security" in operation) == is_guarded
                response = await client.request(method, path)
                assert (response.status_code == 401) == is_guarded
        assert guarded > 10
        headers = {"authorization": f"Bearer {make_token(KEY, 60)}"}
        assert (await client.get("/v1/apps", headers=headers)).status_code == 200


async def test_a_body_is_not_read_for_those_who_may_not_send_one(
    catalog: Catalog, calls: FakeCalls, schedules: Schedules
) -> None:
    app = make_app(catalog, schedules, calls, jwt_auth_key=KEY)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://faas") as client:
        response = await client.post("/v1/apps", content=b"x" * 2_000_000)
    assert response.status_code == 401
