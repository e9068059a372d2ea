"""Every setting, typed, in one place: `FAAS_<NAME>` in the environment, `--<name>` on the command line.

IronFunctions' names (`DB_URL`, `MQ_URL`, `PORT`, `LOG_LEVEL`, `JWT_AUTH_KEY`, `DOCKER_AUTH`, `DOCKER_HOST`) are
accepted too. `docs/configuration.md` is generated from here.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Positive = Annotated[float, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _also(name: str, bare: str = "") -> AliasChoices:
    """Accept `FAAS_<NAME>` first, then the bare name that IronFunctions or Docker use."""
    return AliasChoices(f"FAAS_{name}", bare or name)


class Settings(BaseSettings):
    """The node's configuration; invalid values raise pydantic's `ValidationError` with the setting's name."""

    model_config = SettingsConfigDict(
        env_prefix="FAAS_", env_ignore_empty=True, extra="ignore", populate_by_name=True, frozen=True
    )

    # --- where it listens and what it stands on
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(8080, validation_alias=_also("PORT"), description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path("data"), description="Folder for the database, sockets and this node's identity.")
    db_url: str = Field(
        "",
        validation_alias=_also("DB_URL"),
        description="`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DB`; empty is `DATA_DIR/faas.db`.",
    )
    queue_url: str = Field(
        "sql:",
        validation_alias=_also("QUEUE_URL", "MQ_URL"),
        description="`sql:` keeps the call queue in the database; `redis://HOST:PORT/DB` in Redis 7 or newer.",
    )
    processes: Natural = Field(
        1,
        description="Processes that serve the port together; containers, queue and database stay one's affair."
        " 0: one for each usable core.",
    )
    executor: Literal["docker"] = Field("docker", description="What runs the containers.")
    node_name: str = Field("", description="Name of this node in call records; empty is the host's name.")

    # --- logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_also("LOG_LEVEL"), description="Least level that is logged."
    )
    log_format: Literal["logfmt", "json"] = Field("logfmt", description="How a log line is written.")

    # --- access
    jwt_auth_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=_also("JWT_AUTH_KEY"),
        description="When set, `/v1` and `/tasks` want `Authorization: Bearer` with a JWT signed (HS*) by this key.",
    )
    docker_auth: SecretStr = Field(
        SecretStr(""),
        validation_alias=_also("DOCKER_AUTH"),
        description='Registry logins, JSON: `[{"name": "registry", "username": "...", "password": "..."}]`.',
    )
    docker_host: str = Field(
        "unix:///var/run/docker.sock",
        validation_alias=_also("DOCKER_HOST"),
        description="The Docker Engine's Unix socket.",
    )

    # --- what a call may be
    max_header_bytes: Natural = Field(64 * KIB, description="Largest header block of a request; beyond: 431.")
    max_request_bytes: Natural = Field(2 * GIB, description="Largest body of a sync call; beyond: 413. 0: no limit.")
    max_buffered_request_bytes: Natural = Field(
        16 * MIB,
        description="Largest body that must be here before its call begins: of async calls, and of calls of format"
        " `http` that do not declare a length; beyond: 413.",
    )
    max_response_header_bytes: Natural = Field(64 * KIB, description="Largest header block a function may answer.")
    max_response_bytes: Natural = Field(2 * GIB, description="Largest answer of a sync call. 0: no limit.")
    max_result_bytes: Natural = Field(16 * MIB, description="Bytes of an async call's answer that are kept.")
    max_log_bytes: Natural = Field(1 * MIB, description="Bytes of a call's log that are kept.")
    max_timeout_s: Natural = Field(3600, description="Longest `timeout` a route may have; 0: no limit.")
    max_idle_timeout_s: Natural = Field(86400, description="Longest `idle_timeout` a route may have; 0: no limit.")

    # --- how long things may take
    queue_timeout_s: Positive = Field(30.0, description="Longest wait of a sync call for a container; then 503.")
    start_timeout_s: Positive = Field(10.0, description="Time a hot container has to get ready; then 504.")
    pull_timeout_s: Positive = Field(600.0, description="Time an image pull may take.")
    engine_timeout_s: Positive = Field(60.0, description="Time any other request to the engine may take.")
    request_read_timeout_s: Positive = Field(
        30.0, description="Longest pause while a request's head or body arrives; then the connection is closed."
    )
    shutdown_grace_s: Positive = Field(30.0, description="Time that calls in flight have to end on SIGTERM.")

    # --- capacity
    memory_mib: Natural = Field(
        0, description="Memory for functions; 0: the cgroup's limit or what is free, less 10 % (256 MiB to 5 GiB)."
    )
    max_parallel_starts: Annotated[int, Field(ge=1)] = Field(
        4, description="Containers that are created and started at the same time."
    )
    max_spares: Natural = Field(
        16, description="Containers kept created, not started, for functions in use; one a function. 0: none."
    )
    max_waiting_per_function: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Sync calls that may wait for one function on this node; beyond: 503."
    )

    # --- containers, hardened by default
    container_user: str = Field(
        "65534:65534", description="User for images that name none; `image` leaves them as they are, which is root."
    )
    container_read_only: bool = Field(True, description="Read-only root file system.")
    container_drop_capabilities: bool = Field(True, description="Drop all capabilities.")
    container_no_new_privileges: bool = Field(True, description="Set `no-new-privileges`.")
    container_tmpfs_mib: Natural = Field(64, description="Size of the tmpfs on `/tmp`; 0: none.")
    container_pids: Natural = Field(256, description="Most processes and threads; 0: no limit.")
    container_open_files: Natural = Field(1024, description="Most open files; 0: the engine's default.")
    container_network: str = Field("bridge", description="Docker network of functions: `bridge`, `none` or a name.")
    network_pool: Natural = Field(
        8, description="Network namespaces kept ready; a container starts much faster in one. 0: none."
    )

    # --- async calls and records
    async_concurrency: Annotated[int, Field(ge=0)] = Field(
        32, description="Queued calls this node runs at the same time; 0: none."
    )
    async_memory_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="Part of `memory_mib` that queued calls may use at the same time; the rest is for sync calls."
    )
    accept_without_queue: bool = Field(
        False,
        description="Accept async calls also while Redis does not answer: they are on disk and run when it is back."
        " Otherwise such a call gets 503.",
    )
    lease_s: Positive = Field(10.0, description="Time after which a silent worker's calls go to another one.")
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        5, description="Attempts of one call before it ends in `error`, when the node dies each time."
    )
    retention_s: Annotated[int, Field(ge=1)] = Field(
        7 * 86400, description="Age at which an ended call's record is deleted; its id answers 410 then."
    )
    idempotency_retention_s: Annotated[int, Field(ge=1)] = Field(
        86400, description="Time for which a request with the same `Idempotency-Key` is a repeat."
    )
    webhook_allowed_networks: str = Field(
        "",
        description="Networks that webhooks may be sent to though they are not public, such as `10.1.0.0/16,::1/128`.",
    )
    record_sync_per_s: Natural = Field(
        250,
        description="Sync calls written to the database per second; beyond: dropped and counted, and at more than five"
        " times as many calls only failures and a sample are written. 0: none.",
    )
    recent_calls: Natural = Field(10_000, description="Sync calls this node remembers in memory.")

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        scheme = self.db_url.partition(":")[0].partition("+")[0]
        if self.db_url and scheme not in ("sqlite", "postgresql", "postgres"):
            raise ValueError(f"db type not supported {scheme}: use sqlite:///PATH or postgresql://...")
        scheme = self.queue_url.partition(":")[0]
        if scheme not in ("sql", "redis", "rediss", "unix"):
            raise ValueError(f"mq type not supported {scheme}: use sql: or redis://HOST:PORT/DB")
        return self

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _check_networks(cls, text: str) -> str:
        _networks_in(text)
        return text

    @property
    def webhook_networks(self) -> list[IPv4Network | IPv6Network]:
        """`webhook_allowed_networks`, parsed."""
        return _networks_in(self.webhook_allowed_networks)

    @property
    def database_url(self) -> str:
        """The database's URL with SQLAlchemy's async driver in it."""
        url = self.db_url or f"sqlite:///{self.data_dir.absolute() / 'faas.db'}"
        scheme, _, rest = url.partition("://")
        driver = {"sqlite": "sqlite+aiosqlite", "postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg"}
        return f"{driver.get(scheme, scheme)}://{rest}"


def _networks_in(text: str) -> list[IPv4Network | IPv6Network]:
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]
