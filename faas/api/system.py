"""What an operator and a load balancer ask: who is there, is it alive, can it take work, what does it count."""

import asyncio
import logging

from fastapi import APIRouter, Response

from faas import __version__
from faas.api.openapi import errors
from faas.api.schemas import HealthAnswer, PingAnswer, ReadyAnswer, StatsAnswer, VersionAnswer
from faas.api.services import LookupDep, ReadinessCheck, ServicesDep
from faas.errors import FaasError
from faas.metrics import CONTENT_TYPE

__all__ = ["NotReadyError", "router"]

logger = logging.getLogger(__name__)

READINESS_TIMEOUT_S = 2.0
"""A load balancer asks every few seconds and does not wait longer."""

router = APIRouter(tags=["system"])


class NotReadyError(FaasError):
    """A part of the node can't take work; the message names it."""

    http_status = 503
    code = "not_ready"
    retry_after_s = 1


@router.get("/", summary="Greet")
async def ping() -> PingAnswer:
    """IronFunctions' answer, which its tools look for."""
    return PingAnswer(goto="https://github.com/iron-io/functions", hello="world!")


@router.get("/version", summary="Show the version")
async def version() -> VersionAnswer:
    """The version of this server."""
    return VersionAnswer(version=__version__)


@router.get("/stats", summary="Count calls")
async def stats(lookup: LookupDep) -> StatsAnswer:
    """Calls of this node: waiting, running, ended since it started."""
    now = await lookup.stats()
    return StatsAnswer(Queue=now.queue, Running=now.running, Complete=now.complete)


@router.get("/healthz", summary="Is the process alive?")
@router.head("/healthz", include_in_schema=False)
async def healthz() -> HealthAnswer:
    """200 as long as the process answers; restart it when it does not."""
    return HealthAnswer(status="ok")


@router.get("/readyz", summary="Can the node take work?", responses=errors(NotReadyError))
@router.head("/readyz", include_in_schema=False)
async def readyz(services: ServicesDep) -> ReadyAnswer:
    """200 when every part answers and the node is not draining; send it no work when it is not."""
    names = list(services.readiness)
    answers = await asyncio.gather(*(_ask(name, services.readiness[name]) for name in names))
    checks = dict(zip(names, answers, strict=True))
    if failed := [f"{name}: {answer}" for name, answer in checks.items() if answer != "ok"]:
        raise NotReadyError("Not ready: " + "; ".join(failed))
    return ReadyAnswer(status="ready", checks=checks)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"description": "Text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: ServicesDep) -> Response:
    """Everything the node counts."""
    return Response(await services.render_metrics(), headers={"content-type": CONTENT_TYPE})


async def _ask(name: str, check: ReadinessCheck) -> str:
    try:
        async with asyncio.timeout(READINESS_TIMEOUT_S):
            await check()
    except FaasError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {READINESS_TIMEOUT_S:g} s"
    except Exception:
        # Its text may hold an address with a password in it: the log gets it, not whoever asks.
        logger.exception("readiness_check_failed", extra={"check": name})
        return "failed; the log says why"
    return "ok"
