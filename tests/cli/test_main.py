"""The command line as a whole: its start, its exit codes, its settings."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest

from faas import errors, server
from faas.cli import settings
from faas.cli.exits import ExitCode, of_error
from faas.config import Settings

if TYPE_CHECKING:
    from tests.cli.conftest import Faas, Server

DOCS = Path(__file__).parents[2] / "docs"
HEAVY = ("alembic", "asyncio", "docker", "fastapi", "httpx", "jwt", "pydantic", "redis", "sqlalchemy", "uvicorn")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; import faas.cli.main as main;"
        "assert CliRunner().invoke(main.app, ['--help']).exit_code == 0; print(*sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(HEAVY) & set(listed.stdout.split()) == set()


def test_each_error_of_the_platform_has_an_exit_code_of_its_kind() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and value is not errors.FaasError]
    found = {kind.code: of_error(kind.code, kind.http_status) for kind in kinds if issubclass(kind, errors.FaasError)}
    assert ExitCode.OK not in found.values()
    broken = {code for code, exit_code in found.items() if exit_code is ExitCode.SERVER_ERROR}
    assert broken <= {"internal", "image_not_found", "schema_too_new", "startup"}


def test_the_reference_of_the_settings_is_up_to_date() -> None:
    written = (DOCS / "configuration.md").read_text()
    assert written == settings.reference(), "run: faas config --reference > docs/configuration.md"


def test_the_exit_codes_are_documented() -> None:
    text = (DOCS / "cli.md").read_text()
    assert [code for code in ExitCode if f"| {code.value} |" not in text] == []


def test_config_says_where_each_value_comes_from(faas: Faas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("FAAS_PORT", "1")
    lines = [line.split() for line in faas("config", "--port", "2").stdout.splitlines()]
    assert ["port", "2", "--port"] in lines
    assert ["log_level", "debug", "LOG_LEVEL"] in lines
    assert ["host", "127.0.0.1", "default"] in lines


def test_the_variables_of_a_setting_are_listed_in_the_order_in_which_they_count(
    faas: Faas, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in settings.describe():
        if setting.kind != "text" or setting.name in ("db_url", "webhook_allowed_networks"):
            continue
        for name in reversed(setting.env):
            value = f"unix:{name}"
            monkeypatch.setenv(name, value)
            assert [setting.name, value, name] in [line.split() for line in faas("config").stdout.splitlines()]


def test_config_shows_no_secret_in_any_form(faas: Faas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAS_JWT_AUTH_KEY", "hush1")
    monkeypatch.setenv("FAAS_DB_URL", "postgresql://me:hush2@db/faas")
    for form in ("table", "json", "env"):
        assert "hush" not in faas("config", "-o", form).output
    values = json.loads(faas("config", "-o", "json").stdout)
    assert values["db_url"] == "postgresql://me:**********@db/faas"
    assert values["port"] == 8080
    assert values["container_read_only"] is True


def test_config_as_environment_gives_the_same_settings_again(faas: Faas, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = faas("config", "-o", "env", "--no-container-read-only", "--node-name", "a b'c").stdout.splitlines()
    for line in lines:
        name, _, value = shlex.split(line)[0].partition("=")
        monkeypatch.setenv(name, value)
    assert Settings().container_read_only is False
    assert Settings().node_name == "a b'c"


def test_a_wrong_setting_is_named_as_it_was_given_and_not_repeated(faas: Faas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAS_MEMORY_MIB", "much")
    result = faas("config", "--port", "70000")
    assert result.exit_code == 2
    assert "--port: Input should be less than or equal to 65535" in result.stderr
    assert "FAAS_MEMORY_MIB: Input should be a valid integer" in result.stderr
    assert "much" not in result.stderr


def test_serve_runs_a_node_with_flags_over_the_environment(faas: Faas, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def serve(given: Settings) -> int:
        seen.append(given)
        return 3

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setenv("FAAS_PORT", "1")
    monkeypatch.setenv("FAAS_MEMORY_MIB", "512")
    result = faas("serve", "--port", "2", "--data-dir", "/d", "--no-container-read-only")
    assert result.exit_code == 3
    assert (seen[0].port, seen[0].memory_mib, str(seen[0].data_dir)) == (2, 512, "/d")
    assert seen[0].container_read_only is False


def test_serve_has_a_flag_for_every_setting(faas: Faas) -> None:
    text = faas("serve", "--help").stdout
    missing = [setting.flag for setting in settings.describe() if setting.flag[:14] not in text]
    assert missing == []


def test_version_tells_both_sides(faas: Faas, server: Server) -> None:
    server.on_json("GET /version", {"version": "9.9.9"})
    assert json.loads(faas("version", "-o", "json").stdout)["server"] == "9.9.9"


def test_version_works_without_a_server(faas: Faas) -> None:
    result = faas("version", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 0
    assert "none: Can't reach http://127.0.0.1:1" in result.stdout


def test_the_token_comes_from_the_environment(faas: Faas, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on_json("GET /v1/apps", {"apps": []})
    monkeypatch.setenv("FAAS_TOKEN", "abc")
    faas("apps", "list")
    assert server.received[0].headers["authorization"] == "Bearer abc"


def test_with_the_servers_key_a_short_lived_token_is_signed(
    faas: Faas, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on_json("GET /v1/apps", {"apps": []})
    monkeypatch.setenv("JWT_AUTH_KEY", "k" * 32)
    faas("apps", "list")
    token = server.received[0].headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, "k" * 32, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 300


def test_something_that_is_no_faas_server_is_told_apart(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps", {"unexpected": 1})
    result = faas("apps", "list")
    assert result.exit_code == 10
    assert "is that a faas server?" in result.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Invalid API Authorization token."}, "Invalid API Authorization token."),
        ("Not Found", "Not Found"),
        ({"error": {"message": "a\nb"}}, "a\nb"),
    ],
)
def test_errors_in_ironfunctions_shapes_are_understood(faas: Faas, server: Server, body: object, message: str) -> None:
    server.on_json("GET /v1/apps", body, 400)
    result = faas("apps", "list")
    assert result.exit_code == 3
    assert result.stderr == f"Error: {message}\n"
