"""Settings: where they come from and which are refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from faas.config import Settings

BARE_NAMES = {"PORT", "DB_URL", "MQ_URL", "LOG_LEVEL", "JWT_AUTH_KEY", "DOCKER_AUTH", "DOCKER_HOST"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FAAS_") or name in (
            "PORT",
            "DB_URL",
            "MQ_URL",
            "LOG_LEVEL",
            "DOCKER_HOST",
            "DOCKER_AUTH",
            "JWT_AUTH_KEY",
        ):
            monkeypatch.delenv(name)


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("PORT", "port", 9000),
        ("DB_URL", "db_url", "sqlite:///x.db"),
        ("MQ_URL", "queue_url", "redis://here"),
        ("LOG_LEVEL", "log_level", "debug"),
        ("DOCKER_HOST", "docker_host", "unix:///x.sock"),
        ("JWT_AUTH_KEY", "jwt_auth_key", SecretStr("key")),
        ("DOCKER_AUTH", "docker_auth", SecretStr("[]")),
    ],
)
def test_ironfunctions_names_are_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str, value: object
) -> None:
    plain = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    assert getattr(settings(monkeypatch, **{name: plain}), field) == value


@pytest.mark.parametrize(("name", "field"), [("FAAS_QUEUE_URL", "queue_url"), ("FAAS_NODE_NAME", "node_name")])
def test_every_setting_has_a_name_with_our_prefix(monkeypatch: pytest.MonkeyPatch, name: str, field: str) -> None:
    assert getattr(settings(monkeypatch, **{name: "redis://here"}), field) == "redis://here"


def test_our_name_wins_over_the_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, PORT="1", FAAS_PORT="2").port == 2


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, FAAS_PORT="", DB_URL="").port == 8080


def test_names_without_our_prefix_mean_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, HOST="0.0.0.0", DATA_DIR="/nowhere", RETENTION_S="1").host == "127.0.0.1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"db_url": "mysql://x"}, "db type not supported mysql"),
        ({"db_url": "bolt:///x"}, "db type not supported bolt"),
        ({"queue_url": "bolt:///x"}, "mq type not supported bolt"),
        ({"queue_url": ""}, "mq type not supported"),
    ],
)
def test_an_unknown_scheme_is_refused_with_ironfunctions_words(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 65536}, "port"),
        ({"lease_s": 0}, "lease_s"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"executor": "podman"}, "docker"),
        ({"log_format": "xml"}, "logfmt"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**changes)
    assert message.lower() in str(refused.value).lower()


@pytest.mark.parametrize(
    ("url", "with_driver"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h/d?a=1", "postgresql+asyncpg://u:p@h/d?a=1"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_a_databases_url_gets_its_driver(url: str, with_driver: str) -> None:
    assert Settings(db_url=url).database_url == with_driver


def test_without_a_database_it_is_a_file_in_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(data_dir="/some/where").database_url == "sqlite+aiosqlite:////some/where/faas.db"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = repr(settings(monkeypatch, JWT_AUTH_KEY="hidden-key", DOCKER_AUTH="hidden-login"))
    assert "hidden" not in shown
