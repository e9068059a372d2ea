"""`faas apps`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Faas, Server

APP = {"name": "shop", "config": {"DB": "x=y", "a.b": "dotted"}}


def test_apps_are_listed_as_a_table_for_people(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps", {"message": "", "apps": [APP, {"name": "empty", "config": None}]})
    result = faas("apps", "list")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["NAME", "CONFIG"],
        ["shop", "DB", "a.b"],
        ["empty"],
    ]


def test_apps_are_listed_as_json_for_scripts(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps", {"message": "", "apps": [APP]})
    assert json.loads(faas("apps", "list", "-o", "json").stdout) == [APP]


def test_create_sends_the_name_and_the_configuration(faas: Faas, server: Server) -> None:
    server.on_json("POST /v1/apps", {"message": "", "app": APP})
    result = faas("apps", "create", "shop", "--config", "DB=x=y", "-c", "EMPTY=")
    assert result.exit_code == 0
    assert server.received[0].json == {"app": {"name": "shop", "config": {"DB": "x=y", "EMPTY": ""}}}
    assert result.stderr == "Created the app shop.\n"
    assert result.stdout == ""


def test_a_pair_without_a_value_is_a_usage_error_that_shows_the_form(faas: Faas, server: Server) -> None:
    result = faas("apps", "create", "shop", "--config", "DB")
    assert result.exit_code == 2
    assert "'DB' is not KEY=VALUE" in result.stderr
    assert server.received == []


def test_inspect_prints_one_property_as_it_is(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps/shop", {"message": "", "app": APP})
    assert faas("apps", "inspect", "shop", "config.DB").stdout == "x=y\n"
    assert faas("apps", "inspect", "shop", "config.a.b").stdout == "dotted\n"
    assert json.loads(faas("apps", "inspect", "shop", "config").stdout) == APP["config"]


def test_inspect_of_a_property_that_is_not_there_names_those_that_are(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps/shop", {"message": "", "app": APP})
    result = faas("apps", "inspect", "shop", "nope")
    assert result.exit_code == 4
    assert result.stderr == "Error: There is no property 'nope'\nThere are: name, config.\n"


def test_config_unset_sends_an_empty_value_which_is_how_the_server_deletes_a_key(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop", {"message": "", "app": APP})
    assert faas("apps", "config", "unset", "shop", "DB", "OTHER").exit_code == 0
    assert server.received[0].json == {"app": {"config": {"DB": "", "OTHER": ""}}}


def test_config_set_sends_nothing_but_the_key(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop", {"message": "", "app": APP})
    assert faas("apps", "config", "set", "shop", "DB", "1").exit_code == 0
    assert server.received[0].json == {"app": {"config": {"DB": "1"}}}


def test_config_set_refuses_an_empty_value_because_it_would_delete(faas: Faas, server: Server) -> None:
    result = faas("apps", "config", "set", "shop", "DB", "")
    assert result.exit_code == 2
    assert server.received == []


def test_delete_of_an_app_with_routes_says_what_to_do_next(faas: Faas, server: Server) -> None:
    server.on_error("DELETE /v1/apps/shop", 400, "app_has_routes", "Cannot remove apps with routes")
    result = faas("apps", "delete", "shop")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "Error: Cannot remove apps with routes",
        "`faas apps delete APP --force` deletes them, too.",
    ]


def _app_with_routes(server: Server) -> None:
    server.on_json("GET /v1/apps/shop", {"app": APP})
    server.on_json("GET /v1/apps/shop/routes", {"routes": [{"path": "/a"}, {"path": "/b/c"}]})
    server.on_json("GET /v1/apps/shop/schedules", {"schedules": []})
    server.on_json("DELETE /v1/apps/shop/routes/a", {"message": "Route deleted"})
    server.on_error("DELETE /v1/apps/shop/routes/b/c", 404, "route_not_found", "Route not found")
    server.on_json("DELETE /v1/apps/shop", {"message": "App deleted"})


def test_force_deletes_the_routes_first_also_when_one_is_gone_meanwhile(faas: Faas, server: Server) -> None:
    _app_with_routes(server)
    assert faas("apps", "delete", "shop", "--force", "--yes").exit_code == 0
    assert [request for request in server.requests if request.startswith("DELETE")] == [
        "DELETE /v1/apps/shop/routes/a",
        "DELETE /v1/apps/shop/routes/b/c",
        "DELETE /v1/apps/shop",
    ]


def test_force_asks_first_and_no_deletes_nothing(faas: Faas, server: Server) -> None:
    _app_with_routes(server)
    result = faas("apps", "delete", "shop", "--force", stdin="n\n")
    assert result.exit_code == 9
    assert "/b/c" in result.stderr
    assert not any(request.startswith("DELETE") for request in server.requests)


def test_force_without_an_answer_deletes_nothing(faas: Faas, server: Server) -> None:
    _app_with_routes(server)
    assert faas("apps", "delete", "shop", "--force").exit_code == 9
    assert not any(request.startswith("DELETE") for request in server.requests)


def test_a_name_with_slashes_can_not_reach_another_resource(faas: Faas, server: Server) -> None:
    faas("apps", "delete", "a/routes/b")
    assert server.requests == ["DELETE /v1/apps/a%2Froutes%2Fb"]
    assert faas("apps", "delete", "..").exit_code == 2
    assert len(server.requests) == 1
