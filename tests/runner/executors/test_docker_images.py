"""Pulling: from a registry in this process, by the real engine."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from docker import errors as docker_errors

from faas.errors import ImageNotAvailableError, ImageUnusableError, ValidationError
from faas.models import PullPolicy
from faas.runner.executors.docker_images import parse_registry_logins
from tests.support.registry import Registry, running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import docker

    from faas.runner.executors.docker import DockerExecutor
    from tests.support.docker import MakeExecutor

PASSWORD = "s3cret-pass"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as registry:
        yield registry


@pytest.fixture
def new_image(registry: Registry, docker_client: docker.APIClient) -> Iterator[Callable[..., str]]:
    """Puts images into the registry; what was pulled of them is removed."""
    references: list[str] = []

    def make(**options: str) -> str:
        content = uuid.uuid4().bytes
        references.append(registry.add(f"f-{content.hex()[:8]}", content=content, **options))
        return references[-1]

    yield make
    for reference in references:
        name = reference.removesuffix(":latest")
        # By name and not by tag: a tag that moved has left its old image behind without one.
        for image in docker_client.images(name=name):
            with suppress(docker_errors.ImageNotFound):
                docker_client.remove_image(image["Id"], force=True)


# --- offline


def test_logins_are_read_from_ironfunctions_docker_auth() -> None:
    text = json.dumps(
        [
            {"name": "https://index.docker.io/v1/", "username": "a", "password": PASSWORD},
            {"name": "reg.example:5000", "username": "b", "password": PASSWORD},
        ]
    )
    logins = parse_registry_logins(text)
    assert [(login.registry, login.username) for login in logins] == [("docker.io", "a"), ("reg.example:5000", "b")]
    assert PASSWORD not in repr(logins)
    assert parse_registry_logins(" ") == ()


@pytest.mark.parametrize(
    "text", [PASSWORD, f'{{"password": "{PASSWORD}"}}', f'[{{"name": "x", "password": "{PASSWORD}"}}]', "3", "[3]"]
)
def test_a_broken_docker_auth_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValidationError, match="docker_auth must be JSON") as caught:
        parse_registry_logins(text)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__


# --- the real engine

pulls = pytest.mark.docker


@pulls
async def test_a_missing_image_is_pulled_and_then_found(
    docker_executor: DockerExecutor, registry: Registry, new_image: Callable[..., str]
) -> None:
    reference = new_image()
    with pytest.raises(ImageNotAvailableError, match="pull is `never`"):
        await docker_executor.resolve_image(reference, pull=PullPolicy.NEVER)
    assert registry.manifest_requests == 0
    pulled = await docker_executor.resolve_image(reference, pull=PullPolicy.MISSING)
    asked = registry.manifest_requests
    assert await docker_executor.resolve_image(reference, pull=PullPolicy.MISSING) == pulled
    assert await docker_executor.resolve_image(reference, pull=PullPolicy.NEVER) == pulled
    assert registry.manifest_requests == asked > 0


@pulls
async def test_always_sees_that_a_tag_has_moved(
    docker_executor: DockerExecutor, registry: Registry, new_image: Callable[..., str]
) -> None:
    reference = new_image()
    old = await docker_executor.resolve_image(reference, pull=PullPolicy.MISSING)
    registry.add(reference.split("/")[1].split(":")[0], content=b"another")
    assert await docker_executor.resolve_image(reference, pull=PullPolicy.MISSING) == old
    new = await docker_executor.resolve_image(reference, pull=PullPolicy.ALWAYS)
    assert new.digest != old.digest


@pulls
async def test_however_many_ask_there_is_one_pull(
    docker_executor: DockerExecutor, registry: Registry, new_image: Callable[..., str]
) -> None:
    reference = new_image()
    await docker_executor.resolve_image(reference, pull=PullPolicy.ALWAYS)
    alone = registry.manifest_requests
    registry.manifest_requests = 0
    registry.hangs.set()
    asking = [
        asyncio.ensure_future(docker_executor.resolve_image(reference, pull=PullPolicy.ALWAYS)) for _ in range(50)
    ]
    await asyncio.sleep(0.1)
    asking[0].cancel()  # whoever asked first may leave
    registry.stop_hanging()
    images = await asyncio.gather(*asking[1:])
    assert len({image.digest for image in images}) == 1
    assert 0 < registry.manifest_requests <= alone


@pulls
async def test_a_failed_pull_is_not_repeated_at_once(
    docker_executor: DockerExecutor, registry: Registry, docker_client: docker.APIClient
) -> None:
    reference = f"{registry.address}/nobody:has-it"
    for _ in range(5):
        with pytest.raises(ImageNotAvailableError, match=r"(?i)manifest.*unknown|not found"):
            await docker_executor.resolve_image(reference, pull=PullPolicy.MISSING)
    first = registry.manifest_requests
    assert 0 < first <= 2  # the engine itself asks by HEAD, then by GET


@pulls
async def test_the_login_of_docker_auth_opens_a_private_registry(
    make_executor: MakeExecutor, registry: Registry, new_image: Callable[..., str]
) -> None:
    registry.login = ("me", PASSWORD)
    reference = new_image()

    def logged_in(password: str) -> DockerExecutor:
        text = json.dumps([{"name": registry.address, "username": "me", "password": password}])
        return make_executor(registry_logins=parse_registry_logins(text))

    for refused in (make_executor(), logged_in("wr0ng-pass")):
        with pytest.raises(ImageNotAvailableError) as caught:
            await refused.resolve_image(reference, pull=PullPolicy.MISSING)
        assert "wr0ng-pass" not in str(caught.value)
    image = await logged_in(PASSWORD).resolve_image(reference, pull=PullPolicy.MISSING)
    assert image.reference == reference


@pulls
async def test_a_registry_that_hangs_is_given_up(
    make_executor: MakeExecutor, registry: Registry, new_image: Callable[..., str]
) -> None:
    registry.hangs.set()
    executor = make_executor(pull_timeout_s=0.3)
    with pytest.raises(ImageNotAvailableError, match=r"not done within 0\.3 s"):
        await executor.resolve_image(new_image(), pull=PullPolicy.MISSING)


@pulls
async def test_an_image_for_other_cpus_is_refused_in_plain_words(
    docker_executor: DockerExecutor, new_image: Callable[..., str]
) -> None:
    reference = new_image(architecture="s390x")
    with pytest.raises(ImageUnusableError, match="made for linux/s390x and can't run on this engine"):
        await docker_executor.resolve_image(reference, pull=PullPolicy.MISSING)
