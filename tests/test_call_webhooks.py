"""Whose webhooks an accepted call has."""

from __future__ import annotations

import pytest

from faas.errors import InvalidRequestError
from faas.models import App, CallStatus, FormatName
from faas.webhooks import Webhooks
from tests.support.samples import a_route
from tests.test_calls import Desk, desk, empty_database

__all__ = ["desk", "empty_database"]

WEBHOOKS = Webhooks(on_failure="http://a.example/no", secret="whsec_x")


def deploy_with(desk: Desk, webhooks: Webhooks | None) -> None:
    route = a_route(image="echo", path="/echo", format=FormatName.HTTP_STREAM, webhooks=webhooks)
    desk.table.route_changed(App(name="demo"), route)


async def test_a_call_keeps_whom_its_route_tells_and_a_caller_can_name_another(desk: Desk) -> None:
    deploy_with(desk, WEBHOOKS)
    accepted = await desk.submit()
    called_back = await desk.submit(callback_url="http://b.example/")
    deploy_with(desk, None)
    assert (await desk.lookup.get(accepted.id)).webhooks == WEBHOOKS
    both = Webhooks(on_success="http://b.example/", on_failure="http://b.example/", secret=WEBHOOKS.secret)
    assert (await desk.lookup.get(called_back.id)).webhooks == both


async def test_webhooks_with_a_secret_alone_tell_nobody_by_themselves(desk: Desk) -> None:
    deploy_with(desk, Webhooks(secret="whsec_x"))
    assert (await desk.submit()).webhooks is None


async def test_a_callback_that_could_not_be_signed_is_refused_and_nothing_is_accepted(desk: Desk) -> None:
    with pytest.raises(InvalidRequestError, match="X-Callback-Url needs a secret"):
        await desk.submit(callback_url="http://b.example/")
    assert (await desk.store.calls.count_by_status())[CallStatus.QUEUED] == 0
