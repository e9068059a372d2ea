"""`faas routes`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jwt
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Faas, Server

ROUTE = {"app_name": "shop", "path": "/a", "image": "img", "memory": 128, "type": "sync", "format": "http"}


def test_create_sends_only_what_was_given_so_that_the_rest_is_the_servers_default(faas: Faas, server: Server) -> None:
    server.on_json("POST /v1/apps/shop/routes", {"route": ROUTE})
    result = faas("routes", "create", "shop", "a", "img")
    assert result.exit_code == 0
    assert server.received[0].json == {"route": {"path": "/a", "image": "img"}}
    assert f"{server.url}/r/shop/a" in result.stderr


def test_create_sends_every_option_under_the_apis_name(faas: Faas, server: Server) -> None:
    server.on_json("POST /v1/apps/shop/routes", {"route": ROUTE})
    options = "--memory 256 --cpus 0.5 --type async --format http-stream --timeout 2m --idle-timeout 5 "
    options += "--stream-idle 1m --concurrency 8 --min-warm 2 --freeze-ms 500 "
    options += "--retries max=5,backoff=fixed,delay_s=0.5,on=timeout+502 "
    options += "--max-concurrency 3 --config A=1 --config B=2 --header X=1 --header X=2 --jwt-key k --pull never"
    assert faas("routes", "create", "shop", "/a", "img", *options.split()).exit_code == 0
    assert server.received[0].json == {
        "route": {
            "path": "/a",
            "image": "img",
            "memory": 256,
            "cpus": 0.5,
            "type": "async",
            "format": "http-stream",
            "timeout": 120,
            "idle_timeout": 5,
            "stream_idle_s": 60,
            "concurrency": 8,
            "min_warm": 2,
            "freeze_ms": 500,
            "max_concurrency": 3,
            "retries": {"max": 5, "backoff": "fixed", "delay_s": 0.5, "on": ["timeout", 502]},
            "config": {"A": "1", "B": "2"},
            "headers": {"X": ["1", "2"]},
            "jwt_key": "k",
            "pull": "never",
        }
    }


def test_an_unknown_format_is_a_usage_error_that_lists_those_that_exist(faas: Faas) -> None:
    result = faas("routes", "create", "shop", "/a", "img", "--format", "soap")
    assert result.exit_code == 2
    assert "http-stream" in result.stderr


def test_update_sends_only_what_was_given(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop/routes/a", {"route": ROUTE})
    assert faas("routes", "update", "shop", "/a", "--memory", "64").exit_code == 0
    assert [request.json for request in server.received] == [{"route": {"memory": 64}}]


def test_update_puts_a_field_back_with_zero_or_nothing(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop/routes/a", {"route": ROUTE})
    assert faas("routes", "update", "shop", "/a", "--max-concurrency", "0", "--jwt-key", "").exit_code == 0
    assert server.received[0].json == {"route": {"max_concurrency": None, "jwt_key": None}}


def test_update_lets_containers_be_kept_as_by_default_again(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop/routes/a", {"route": ROUTE})
    options = "--concurrency 0 --min-warm 0 --freeze-ms 0 --stream-idle 0"
    assert faas("routes", "update", "shop", "/a", *options.split()).exit_code == 0
    reset = dict.fromkeys(("concurrency", "min_warm", "freeze_ms", "stream_idle_s"))
    assert server.received[0].json == {"route": reset}


def test_retries_are_a_number_or_its_details_and_zero_takes_them_away(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop/routes/a", {"route": ROUTE})
    for given in ("3", "0"):
        assert faas("routes", "update", "shop", "/a", "--retries", given).exit_code == 0
    assert [request.json for request in server.received] == [
        {"route": {"retries": {"max": 3}}},
        {"route": {"retries": None}},
    ]


@pytest.mark.parametrize(("wrong", "why"), [("often", "KEY=VALUE"), ("max=x", "number"), ("maximum=3", "none of max")])
def test_retries_that_say_nothing_are_a_usage_error(faas: Faas, server: Server, wrong: str, why: str) -> None:
    result = faas("routes", "update", "shop", "/a", "--retries", wrong)
    assert result.exit_code == 2
    assert why in result.stderr
    assert server.received == []


def test_update_without_a_change_is_a_usage_error(faas: Faas, server: Server) -> None:
    assert faas("routes", "update", "shop", "/a").exit_code == 2
    assert server.received == []


def test_headers_are_set_and_unset_by_name(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop/routes/a", {"route": ROUTE})
    assert faas("routes", "headers", "set", "shop", "/a", "X-One", "1", "2").exit_code == 0
    assert faas("routes", "headers", "unset", "shop", "/a", "X-One").exit_code == 0
    assert [request.json for request in server.received] == [
        {"route": {"headers": {"X-One": ["1", "2"]}}},
        {"route": {"headers": {"X-One": []}}},
    ]


def test_config_unset_sends_an_empty_value(faas: Faas, server: Server) -> None:
    server.on_json("PATCH /v1/apps/shop/routes/a", {"route": ROUTE})
    assert faas("routes", "config", "unset", "shop", "/a", "K").exit_code == 0
    assert server.received[0].json == {"route": {"config": {"K": ""}}}


def test_a_path_is_escaped_as_it_is_stored(faas: Faas, server: Server) -> None:
    faas("routes", "delete", "shop", "/a b/50%?x")
    assert server.requests == ["DELETE /v1/apps/shop/routes/a%20b/50%25%3Fx"]


def test_list_filters_by_image(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps/shop/routes?image=a%2Fb%3A1", {"routes": [ROUTE]})
    result = faas("routes", "list", "shop", "--image", "a/b:1", "-o", "json")
    assert json.loads(result.stdout) == [ROUTE]


def test_values_can_neither_drive_the_terminal_nor_pass_for_markup(faas: Faas, server: Server) -> None:
    evil = {**ROUTE, "image": "[red]x[/red] \x1b[2J:smile:"}
    server.on_json("GET /v1/apps/shop/routes", {"routes": [evil]})
    assert "[red]x[/red] \\x1b[2J:smile:" in faas("routes", "list", "shop").stdout


def test_a_token_is_made_with_a_given_key_or_with_the_one_the_server_tells(
    faas: Faas, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "k" * 32
    server.on_json("GET /v1/apps/shop/routes/a", {"route": {**ROUTE, "jwt_key": key}})
    told = jwt.decode(faas("routes", "token", "shop", "/a").stdout.strip(), key, algorithms=["HS256"])
    assert told["exp"] - told["iat"] == 3600
    monkeypatch.setenv("FAAS_ROUTE_JWT_KEY", key)
    given = jwt.decode(faas("routes", "token", "shop", "/a", "5m").stdout.strip(), key, algorithms=["HS256"])
    assert given["exp"] - given["iat"] == 300
    assert given["iat"] - given["nbf"] == 60
    assert len(server.received) == 1


def test_a_key_that_is_kept_secret_has_to_be_given(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps/shop/routes/a", {"route": {**ROUTE, "has_jwt_key": True}})
    result = faas("routes", "token", "shop", "/a")
    assert result.exit_code == 2
    assert "--jwt-key" in result.stderr
