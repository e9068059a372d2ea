"""`/v1/calls/{id}/deliveries`: who was told of a call's end."""

from fastapi import APIRouter

from faas.api.openapi import errors
from faas.api.schemas import DeliveriesAnswer, DeliveryAnswer, DeliveryView
from faas.api.services import DeliveriesDep
from faas.errors import CallExpiredError, CallNotFoundError, DeliveryNotFoundError

__all__ = ["router"]

router = APIRouter(prefix="/v1/calls/{call_id}/deliveries", tags=["calls"])

GONE = (CallNotFoundError, CallExpiredError)


@router.get("", summary="List a call's webhook deliveries", responses=errors(*GONE))
async def list_deliveries(deliveries: DeliveriesDep, call_id: str) -> DeliveriesAnswer:
    """Every message about its end, and what became of it; none before the end."""
    found = await deliveries.deliveries_of(call_id)
    return DeliveriesAnswer(
        message="Successfully listed deliveries", deliveries=[DeliveryView.model_validate(one) for one in found]
    )


@router.post("/{number}/redeliver", summary="Send a webhook again", responses=errors(DeliveryNotFoundError, *GONE))
async def redeliver(deliveries: DeliveriesDep, call_id: str, number: int) -> DeliveryAnswer:
    """At once, under the same `webhook-id`, and with all its tries before it."""
    delivery = await deliveries.redeliver(call_id, number)
    return DeliveryAnswer(message="Delivery will be sent again", delivery=DeliveryView.model_validate(delivery))
