"""The catalog: IronFunctions' merge rules, validation, images resolved in time, and a listener that is never behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from faas.catalog import Catalog, Limits, RoutePatch, merge_headers
from faas.errors import (
    AppExistsError,
    AppHasRoutesError,
    AppNotFoundError,
    ChangeNotStartedError,
    FaasError,
    ImageNotAvailableError,
    RouteExistsError,
    RouteNotFoundError,
    ValidationError,
)
from faas.models import App, CallType, FormatName, PullPolicy, Route
from faas.runner.executors.base import Image
from faas.store.engine import Store, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


class Engine:
    """Resolves images to made-up digests, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, PullPolicy]] = []
        self.digests: dict[str, str] = {}
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def resolve(self, reference: str, pull: PullPolicy) -> Image:
        self.asked.append((reference, pull))
        if self.meanwhile is not None:
            await self.meanwhile()
        if reference == "missing":
            raise ImageNotAvailableError("pull access denied for missing")
        return Image(reference=reference, digest=self.digests.get(reference, f"sha256:{reference}"))


class Listener:
    """The functions of this node, as the catalog tells of them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.apps: dict[str, App] = {}
        self.routes: dict[tuple[str, str], tuple[App, Route]] = {}

    def app_changed(self, app: App) -> None:
        self.events.append(("app_changed", app.name))
        self.apps[app.name] = app

    def app_removed(self, app_name: str) -> None:
        self.events.append(("app_removed", app_name))
        del self.apps[app_name]

    def route_changed(self, app: App, route: Route) -> None:
        self.events.append(("route_changed", app.name, route.path))
        self.routes[app.name, route.path] = (app, route)

    def route_removed(self, app_name: str, path: str) -> None:
        self.events.append(("route_removed", app_name, path))
        del self.routes[app_name, path]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/faas.db") as opened:
        yield opened


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def catalog(store: Store, engine: Engine, listener: Listener) -> Catalog:
    limits = Limits(node_memory_mib=1024, max_timeout_s=3600, max_idle_timeout_s=86400)
    return Catalog(store, resolve_image=engine.resolve, limits=limits, listener=listener)


async def route(catalog: Catalog, **fields: Any) -> Route:
    return await catalog.create_route("demo", "/hello", RoutePatch(image="hello", **fields))


# --- apps


async def test_a_created_app_is_stored_and_told(catalog: Catalog, listener: Listener) -> None:
    await catalog.create_app("demo", {"A": "1"})
    assert (await catalog.get_app("demo")).config == {"A": "1"}
    assert listener.apps["demo"].config == {"A": "1"}
    with pytest.raises(AppExistsError):
        await catalog.create_app("demo", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Missing app name"),
        ("x" * 31, "App name must be 30 characters or less"),
        ("no spaces", "Invalid app name"),
        ("naïve", "Invalid app name"),
        ("a:b", "Invalid app name"),
    ],
)
async def test_a_name_that_can_not_be_one_is_refused(
    catalog: Catalog, listener: Listener, name: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        await catalog.create_app(name, {})
    assert listener.events == []


async def test_capital_letters_are_allowed_in_a_name(catalog: Catalog) -> None:
    assert (await catalog.create_app("Demo_App-1", {})).name == "Demo_App-1"


async def test_an_apps_config_is_merged_and_an_empty_value_deletes(catalog: Catalog) -> None:
    await catalog.create_app("demo", {"KEEP": "1", "CHANGE": "2", "DROP": "3"})
    app = await catalog.update_app("demo", {"CHANGE": "two", "DROP": "", "NEW": "4"})
    assert app.config == {"KEEP": "1", "CHANGE": "two", "NEW": "4"}
    assert (await catalog.get_app("demo")).config == app.config


async def test_every_route_of_a_changed_app_is_told(catalog: Catalog, listener: Listener) -> None:
    await route(catalog)
    await catalog.create_route("demo", "/other", RoutePatch(image="hello"))
    listener.events.clear()
    await catalog.update_app("demo", {"A": "1"})
    assert listener.events == [
        ("app_changed", "demo"),
        ("route_changed", "demo", "/hello"),
        ("route_changed", "demo", "/other"),
    ]
    assert listener.routes["demo", "/other"][0].config == {"A": "1"}


async def test_an_app_is_deleted_only_without_routes(catalog: Catalog, listener: Listener) -> None:
    await route(catalog)
    with pytest.raises(AppHasRoutesError):
        await catalog.delete_app("demo")
    assert "demo" in listener.apps
    await catalog.delete_route("demo", "/hello")
    await catalog.delete_app("demo")
    assert listener.events[-2:] == [("route_removed", "demo", "/hello"), ("app_removed", "demo")]
    with pytest.raises(AppNotFoundError):
        await catalog.get_app("demo")


async def test_changing_or_deleting_an_unknown_app_says_so(catalog: Catalog) -> None:
    with pytest.raises(AppNotFoundError):
        await catalog.update_app("nobody", {"A": "1"})
    with pytest.raises(AppNotFoundError):
        await catalog.delete_app("nobody")


# --- creating routes


async def test_a_new_route_has_the_defaults_and_its_images_digest(catalog: Catalog) -> None:
    made = await route(catalog)
    assert made == Route(
        app_name="demo",
        path="/hello",
        image="hello",
        image_digest="sha256:hello",
        config={},
        headers={},
        created_at=made.created_at,
        updated_at=made.updated_at,
    )
    assert (made.memory_mib, made.timeout_s, made.idle_timeout_s, made.max_concurrency) == (128, 30, 30, 0)
    assert await catalog.get_route("demo", "/hello") == made


async def test_creating_a_route_makes_its_app(catalog: Catalog, listener: Listener) -> None:
    await route(catalog)
    assert [app.name for app in await catalog.list_apps()] == ["demo"]
    assert listener.events == [("app_changed", "demo"), ("route_changed", "demo", "/hello")]


async def test_a_route_is_told_together_with_the_config_of_its_app(catalog: Catalog, listener: Listener) -> None:
    await catalog.create_app("demo", {"A": "1"})
    await route(catalog)
    assert listener.routes["demo", "/hello"][0].config == {"A": "1"}


async def test_the_name_of_an_app_that_a_route_would_make_is_checked(catalog: Catalog) -> None:
    with pytest.raises(ValidationError, match="Invalid app name"):
        await catalog.create_route("no spaces", "/hello", RoutePatch(image="hello"))
    assert await catalog.list_apps() == []


@pytest.mark.parametrize(
    ("given", "stored"), [("/a/", "/a"), ("/", "/"), ("/a//b/../c", "/a/c"), ("/../a", "/a"), ("//a", "/a")]
)
async def test_a_path_is_stored_clean_so_that_it_can_be_reached(catalog: Catalog, given: str, stored: str) -> None:
    made = await catalog.create_route("demo", given, RoutePatch(image="hello"))
    assert made.path == stored
    assert await catalog.get_route("demo", given) == made
    with pytest.raises(RouteExistsError):
        await catalog.create_route("demo", stored, RoutePatch(image="hello"))


async def test_an_empty_config_value_of_a_new_route_is_a_variable_without_text(catalog: Catalog) -> None:
    assert (await route(catalog, config={"EMPTY": "", "A": "1"})).config == {"EMPTY": "", "A": "1"}


async def test_a_header_without_values_is_not_stored(catalog: Catalog) -> None:
    made = await route(catalog, headers={"X-One": ["1", "2"], "X-None": [], "X-Null": None})
    assert made.headers == {"X-One": ("1", "2")}


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/hello", {"image": ""}, "Missing route Image"),
        ("", {}, "Missing route Path"),
        ("/a:b", {}, "Dynamic URL is not allowed"),
        ("hello", {}, "Invalid Path format"),
        ("/a\nb", {}, "Path malformed"),
        ("/" + "x" * 600, {}, "Path must be 512 characters or less"),
        ("/hello", {"image": "two words"}, "Invalid image"),
        ("/hello", {"type": "soon"}, "Invalid route Type"),
        ("/hello", {"format": "xml"}, "Invalid route Format"),
        ("/hello", {"pull": "often"}, "Invalid route Pull"),
        ("/hello", {"max_concurrency": -1}, "Negative MaxConcurrency"),
        ("/hello", {"timeout_s": -1}, "Negative timeout"),
        ("/hello", {"idle_timeout_s": -1}, "Negative idle timeout"),
        ("/hello", {"memory_mib": -1}, "Negative memory"),
        ("/hello", {"memory_mib": 4096}, "memory: 4096 MiB asked, this node has 1024 MiB for all functions"),
        ("/hello", {"memory_mib": 1}, "the engine starts nothing below 6"),
        ("/hello", {"timeout_s": 3601}, "timeout: 3601 asked, at most 3600 is allowed"),
        ("/hello", {"idle_timeout_s": 86401}, "idle_timeout: 86401 asked, at most 86400 is allowed"),
        ("/hello", {"max_concurrency": 2**31}, "max_concurrency: 2147483648 asked"),
        (
            "/hello",
            {"format": "http", "concurrency": 2},
            "only containers of format http-stream take more than one call",
        ),
        ("/hello", {"format": "http-stream", "concurrency": 1001}, "concurrency: 1001 asked, at most 1000 is allowed"),
        ("/hello", {"min_warm": 1}, "min_warm: format default has no containers to keep"),
        (
            "/hello",
            {"format": "http", "min_warm": 1001, "memory_mib": 6},
            "min_warm: 1001 asked, at most 1000 is allowed",
        ),
        (
            "/hello",
            {"format": "http", "min_warm": 9},
            "min_warm: 9 containers of 128 MiB asked, this node has 1024 MiB",
        ),
        (
            "/hello",
            {"format": "http", "min_warm": 2, "max_concurrency": 1},
            "min_warm: more than max_concurrency allows",
        ),
        ("/hello", {"freeze_ms": 1}, "freeze_ms: format default has no containers to pause"),
        (
            "/hello",
            {"format": "http", "freeze_ms": 86_400_001},
            "freeze_ms: 86400001 asked, at most 86400000 is allowed",
        ),
        ("/hello", {"stream_idle_s": 86_401}, "stream_idle_s: 86401 asked, at most 86400 is allowed"),
        ("/hello", {"config": {"A=B": "1"}}, "config: a name is not empty and has no `=`"),
        ("/hello", {"config": {"": "1"}}, "config: a name is not empty"),
        ("/hello", {"config": {"A": "secret\0"}}, "config: the value of A has a zero byte"),
        ("/hello", {"config": {"A": "secret\ud800"}}, "config: the value of A has"),
        ("/hello", {"config": {"\udfff": "1"}}, "config: a name is not empty"),
        ("/hello", {"jwt_key": "secret\0"}, "jwt_key: has a zero byte"),
        ("/\ud800", {}, "Path malformed"),
        ("/hello", {"headers": {"X Y": ["1"]}}, "can't be a header's name"),
        ("/hello", {"headers": {"X-A": ["1\r\nX-B: 2"]}}, "headers: a value of X-A"),
        ("/hello", {"headers": {"X-A": ["\u20ac"]}}, "headers: a value of X-A"),
        ("/hello", {"headers": {"Content-Length": ["5"]}}, "Content-Length is set by the server"),
        ("/hello", {"headers": {"FAAS-ERROR": ["x"]}}, "FAAS-ERROR is set by the server"),
    ],
)
async def test_what_can_not_work_is_refused_before_anything_happens(
    catalog: Catalog, engine: Engine, listener: Listener, path: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        await catalog.create_route("demo", path, RoutePatch(**{"image": "hello"} | fields))
    assert caught.value.message.startswith("validation failure list:\nvalidation failure list:\n")
    assert "secret" not in caught.value.message
    assert engine.asked == []
    assert listener.events == []
    assert await catalog.list_routes() == []


async def test_all_problems_are_listed_at_once(catalog: Catalog) -> None:
    with pytest.raises(ValidationError) as caught:
        await catalog.create_route("demo", "a:b", RoutePatch(timeout_s=-1, memory_mib=5000))
    assert len(caught.value.problems) == 5


async def test_an_image_that_can_not_be_had_makes_no_route_and_no_app(catalog: Catalog, listener: Listener) -> None:
    with pytest.raises(ImageNotAvailableError, match="pull access denied"):
        await catalog.create_route("demo", "/hello", RoutePatch(image="missing"))
    assert await catalog.list_apps() == []
    assert listener.events == []


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "http-stream", "concurrency": 1000, "freeze_ms": 86_400_000, "stream_idle_s": 86_400},
        {"format": "http", "min_warm": 8, "memory_mib": 128},
        {"format": "http", "min_warm": 3, "max_concurrency": 3},
    ],
)
async def test_a_limit_itself_is_allowed(catalog: Catalog, fields: dict[str, Any]) -> None:
    made = await route(catalog, **fields)
    assert {name: getattr(made, name) for name in fields} == fields


async def test_a_node_without_a_memory_limit_accepts_any_memory(
    store: Store, engine: Engine, listener: Listener
) -> None:
    unlimited = Catalog(store, resolve_image=engine.resolve, limits=Limits(), listener=listener)
    made = await unlimited.create_route("demo", "/a", RoutePatch(image="hello", memory_mib=10**6, timeout_s=10**6))
    assert (made.memory_mib, made.timeout_s) == (10**6, 10**6)


# --- changing routes


async def test_a_patch_changes_what_it_says_and_nothing_else(catalog: Catalog, listener: Listener) -> None:
    made = await route(catalog, memory_mib=256, jwt_key="secret", config={"A": "1"}, headers={"X-A": ["1"]})
    changed = await catalog.update_route("demo", "/hello", RoutePatch(timeout_s=5, type="async", format="http"))
    assert changed == replace(
        made, timeout_s=5, type=CallType.ASYNC, format=FormatName.HTTP, updated_at=changed.updated_at
    )
    assert listener.routes["demo", "/hello"][1] == changed
    assert await catalog.get_route("demo", "/hello") == changed


async def test_zero_and_empty_change_nothing_as_with_ironfunctions(catalog: Catalog) -> None:
    made = await route(catalog, timeout_s=5, idle_timeout_s=6, max_concurrency=7, jwt_key="secret")
    changed = await catalog.update_route("demo", "/hello", RoutePatch())
    assert changed == replace(made, updated_at=changed.updated_at)


async def test_a_field_that_is_reset_goes_back_to_its_default(catalog: Catalog) -> None:
    await route(catalog, timeout_s=5, max_concurrency=7, jwt_key="secret", format="http")
    reset = frozenset({"timeout_s", "max_concurrency", "jwt_key", "format"})
    changed = await catalog.update_route("demo", "/hello", RoutePatch(reset=reset))
    assert (changed.timeout_s, changed.max_concurrency, changed.jwt_key) == (30, 0, "")
    assert changed.format is FormatName.DEFAULT


async def test_a_routes_config_is_merged_and_an_empty_value_deletes(catalog: Catalog) -> None:
    await route(catalog, config={"KEEP": "1", "DROP": "2"})
    changed = await catalog.update_route("demo", "/hello", RoutePatch(config={"DROP": "", "NEW": "3"}))
    assert changed.config == {"KEEP": "1", "NEW": "3"}


async def test_a_headers_new_values_replace_the_old_ones(catalog: Catalog) -> None:
    await route(catalog, headers={"X-Keep": ["1"], "X-Change": ["1", "2"], "X-Drop": ["1"], "X-Null": ["1"]})
    patch = RoutePatch(headers={"x-change": ["3"], "X-Drop": [], "X-Null": None, "X-New": ["4"]})
    changed = await catalog.update_route("demo", "/hello", patch)
    assert changed.headers == {"X-Keep": ("1",), "x-change": ("3",), "X-New": ("4",)}


def test_header_names_are_the_same_in_any_case() -> None:
    assert merge_headers({"Content-Type": ("a",)}, {"content-type": None}) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timeout_s": -1}, "Negative timeout"),
        ({"type": "soon"}, "Invalid route Type"),
        ({"memory_mib": 4096}, "memory: 4096 MiB asked"),
        ({"min_warm": 1}, "min_warm: format default has no containers"),
        ({"config": {"A": "\0"}}, "zero byte"),
        ({"headers": {"X-A": ["\n"]}}, "headers: a value of X-A"),
    ],
)
async def test_a_patch_is_validated_like_a_new_route(
    catalog: Catalog, listener: Listener, fields: dict[str, Any], message: str
) -> None:
    made = await route(catalog)
    with pytest.raises(ValidationError, match=message):
        await catalog.update_route("demo", "/hello", RoutePatch(**fields))
    assert listener.routes["demo", "/hello"][1] == made


async def test_naming_the_same_image_again_finds_its_new_digest(catalog: Catalog, engine: Engine) -> None:
    await route(catalog)
    engine.digests["hello"] = "sha256:newer"
    assert (await catalog.update_route("demo", "/hello", RoutePatch(timeout_s=5))).image_digest == "sha256:hello"
    assert (await catalog.update_route("demo", "/hello", RoutePatch(image="hello"))).image_digest == "sha256:newer"


async def test_the_image_is_looked_for_again_when_it_or_the_pull_policy_changes(
    catalog: Catalog, engine: Engine
) -> None:
    await route(catalog)
    engine.asked.clear()
    await catalog.update_route("demo", "/hello", RoutePatch(config={"A": "1"}))
    assert engine.asked == []
    await catalog.update_route("demo", "/hello", RoutePatch(pull="always"))
    await catalog.update_route("demo", "/hello", RoutePatch(image="other"))
    assert engine.asked == [("hello", PullPolicy.ALWAYS), ("other", PullPolicy.ALWAYS)]
    assert (await catalog.get_route("demo", "/hello")).image_digest == "sha256:other"


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (RoutePatch(reset=frozenset({"format"})), "min_warm: format default has no containers"),
        (RoutePatch(format="http"), "only containers of format http-stream"),
        (RoutePatch(max_concurrency=1), "min_warm: more than max_concurrency allows"),
        (RoutePatch(memory_mib=513), "min_warm: 2 containers of 513 MiB asked"),
    ],
)
async def test_what_a_route_has_is_checked_with_what_a_patch_says(
    catalog: Catalog, patch: RoutePatch, message: str
) -> None:
    made = await route(catalog, format="http-stream", concurrency=4, min_warm=2)
    with pytest.raises(ValidationError, match=message):
        await catalog.update_route("demo", "/hello", patch)
    assert await catalog.get_route("demo", "/hello") == made


async def test_an_image_is_there_before_anybody_hears_of_the_change(
    catalog: Catalog, engine: Engine, listener: Listener
) -> None:
    made = await route(catalog)
    during: list[Route] = []

    async def look() -> None:
        during.extend([await catalog.get_route("demo", "/hello"), listener.routes["demo", "/hello"][1]])

    engine.meanwhile = look
    changed = await catalog.update_route("demo", "/hello", RoutePatch(image="other"))
    assert during == [made, made]
    assert (changed.image, changed.image_digest) == ("other", "sha256:other")
    assert listener.routes["demo", "/hello"][1] == changed


async def test_a_patch_with_an_image_that_can_not_be_had_changes_nothing(catalog: Catalog, listener: Listener) -> None:
    made = await route(catalog)
    heard = list(listener.events)
    with pytest.raises(ImageNotAvailableError, match="pull access denied"):
        await catalog.update_route("demo", "/hello", RoutePatch(image="missing", timeout_s=5))
    assert await catalog.get_route("demo", "/hello") == made
    assert listener.events == heard


async def test_a_change_during_a_pull_is_not_lost(catalog: Catalog, engine: Engine) -> None:
    await route(catalog)
    engine.meanwhile = lambda: catalog.update_route("demo", "/hello", RoutePatch(timeout_s=5))
    changed = await catalog.update_route("demo", "/hello", RoutePatch(image="other"))
    assert (changed.timeout_s, changed.image, changed.image_digest) == (5, "other", "sha256:other")


async def test_a_patch_that_does_not_go_with_a_change_during_its_pull_is_refused(
    catalog: Catalog, engine: Engine, listener: Listener
) -> None:
    await route(catalog, format="http")
    to_default = RoutePatch(reset=frozenset({"format"}))
    engine.meanwhile = lambda: catalog.update_route("demo", "/hello", to_default)
    with pytest.raises(ValidationError, match="min_warm: format default has no containers"):
        await catalog.update_route("demo", "/hello", RoutePatch(image="other", min_warm=1))
    stored = await catalog.get_route("demo", "/hello")
    assert (stored.format, stored.min_warm, stored.image) == (FormatName.DEFAULT, 0, "hello")
    assert listener.routes["demo", "/hello"][1] == stored


async def test_an_unknown_route_and_an_unknown_app_are_told_apart(catalog: Catalog) -> None:
    await catalog.create_app("demo", {})
    for verb in (catalog.get_route, catalog.delete_route):
        with pytest.raises(RouteNotFoundError):
            await verb("demo", "/nothing")
        with pytest.raises(AppNotFoundError):
            await verb("nobody", "/nothing")
    with pytest.raises(RouteNotFoundError):
        await catalog.update_route("demo", "/nothing", RoutePatch(timeout_s=5))
    with pytest.raises(AppNotFoundError):
        await catalog.update_route("nobody", "/nothing", RoutePatch(timeout_s=5))


# --- listing and loading


async def test_routes_are_listed_by_app_and_by_exact_image(catalog: Catalog) -> None:
    for app_name, path, image in (("a", "/1", "x"), ("a", "/2", "y"), ("b", "/3", "x")):
        await catalog.create_route(app_name, path, RoutePatch(image=image))

    async def paths(**filters: str) -> list[str]:
        return [found.path for found in await catalog.list_routes(**filters)]

    assert await paths() == ["/1", "/2", "/3"]
    assert await paths(app_name="a") == ["/1", "/2"]
    assert await paths(image="x") == ["/1", "/3"]
    assert await paths(app_name="a", image="x") == ["/1"]
    assert await paths(app_name="nobody") == []


async def test_loading_tells_of_everything_that_is_stored(catalog: Catalog, store: Store, engine: Engine) -> None:
    await catalog.create_app("empty", {})
    await route(catalog)
    fresh = Listener()
    await Catalog(store, resolve_image=engine.resolve, limits=Limits(), listener=fresh).load()
    assert set(fresh.apps) == {"demo", "empty"}
    assert list(fresh.routes) == [("demo", "/hello")]


# --- what a change needs is ready before it is made


class Stage:
    """Makes ready what it is told, and notes what the listener had heard by then."""

    def __init__(self, listener: Listener) -> None:
        self.prepared: list[tuple[str, str, int]] = []
        self.problem: FaasError | None = None
        self._listener = listener

    async def prepare(self, app: App, changed: Route) -> None:
        self.prepared.append((changed.image_digest, app.config.get("TIER", ""), len(self._listener.events)))
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def stage(listener: Listener) -> Stage:
    return Stage(listener)


@pytest.fixture
def staged(store: Store, engine: Engine, listener: Listener, stage: Stage) -> Catalog:
    return Catalog(store, resolve_image=engine.resolve, limits=Limits(), listener=listener, prepare=stage.prepare)


async def test_a_changed_route_is_made_ready_before_anybody_hears_of_the_change(
    staged: Catalog, stage: Stage, listener: Listener
) -> None:
    await route(staged)
    heard = len(listener.events)
    assert not stage.prepared, "a new route replaces nothing"
    await staged.update_route("demo", "/hello", RoutePatch(image="other"))
    assert stage.prepared == [("sha256:other", "", heard)]
    assert len(listener.events) > heard


async def test_the_routes_of_a_changed_app_are_made_ready_with_its_new_configuration(
    staged: Catalog, stage: Stage
) -> None:
    await route(staged)
    await staged.update_app("demo", {"TIER": "gold"})
    assert [tier for _, tier, _ in stage.prepared] == ["gold"]


async def test_a_change_that_can_not_be_made_ready_is_not_made(
    staged: Catalog, stage: Stage, listener: Listener
) -> None:
    before = await route(staged)
    heard = list(listener.events)
    stage.problem = ChangeNotStartedError("no container started with it")
    with pytest.raises(ChangeNotStartedError):
        await staged.update_route("demo", "/hello", RoutePatch(image="other"))
    with pytest.raises(ChangeNotStartedError):
        await staged.update_app("demo", {"TIER": "gold"})
    assert listener.events == heard
    assert await staged.get_route("demo", "/hello") == before
    assert not (await staged.get_app("demo")).config
