"""One POST to somebody else's server: to the address that was checked and to no other.

A name is resolved once, its address is checked, and the connection goes to that very address; `Host` and TLS have the
name. So a name that means another address a moment later (DNS rebinding) gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network

    Network = IPv4Network | IPv6Network
    Address = IPv4Address | IPv6Address

__all__ = ["Outcome", "WebhookSender", "is_allowed"]

TRY_S = 15.0
"""Time for a try, from the name's resolution to the head of the answer; Standard Webhooks has 15 to 30."""

DELIVERED = range(200, 300)
GONE = 410
"""The receiver wants no more of these: trying again is pointless."""

_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32_BITS = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one try."""

    is_delivered: bool = False
    is_final: bool = False
    """Trying again is pointless."""
    status_code: int | None = None
    error: str = ""


class WebhookSender:
    """Sends messages, to public addresses and to those in networks that the operator allows."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            # The environment's proxy would connect to addresses that nobody checked.
            trust_env=False,
            timeout=TRY_S,
            # A kept connection is known by its address, and one address may be many names' with TLS for one of them.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Try once; says what became of it and does not raise for anything that the receiver or its name does."""
        try:
            async with asyncio.timeout(TRY_S):
                return await self._post(httpx.URL(url), headers, body)
        except TimeoutError:
            return Outcome(error=f"No answer within {TRY_S:g} s")
        except (httpx.InvalidURL, UnicodeError):
            return Outcome(is_final=True, error="The URL can't be used")
        except httpx.HTTPError as error:
            return Outcome(error=f"Could not be sent: {error or type(error).__name__}")
        except OSError as error:
            return Outcome(error=f"The name could not be resolved: {error.strerror or error}")

    async def _post(self, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> Outcome:
        address = await self._address_of(url)
        if address is None:
            return Outcome(
                is_final=True,
                error="Refused: the receiver's address is not public (webhook_allowed_networks may allow it)",
            )
        host = url.netloc.decode("ascii")
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            headers={"host": host, **headers},
            content=body,
            extensions={"sni_hostname": url.host},
        )
        answer = await self._client.send(request, stream=True)
        try:
            status = answer.status_code
        finally:
            await answer.aclose()  # nothing of the body is wanted, however long it is
        if status in DELIVERED:
            return Outcome(is_delivered=True, status_code=status)
        return Outcome(is_final=status == GONE, status_code=status, error=f"The receiver answered {status}")

    async def _address_of(self, url: httpx.URL) -> Address | None:
        """The first address of the name that may be connected to; None when none may. Raises `OSError`."""
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(sockaddr[0]) for *_, sockaddr in found]
        return next((address for address in addresses if is_allowed(address, self._allowed)), None)


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether it is public, or in one of these networks; an IPv4 address within an IPv6 one counts as itself."""
    inner = _ipv4_in(address)
    if inner is not None:
        return is_allowed(inner, allowed)
    if any(address in network for network in allowed):
        return True
    return address.is_global and not address.is_multicast


def _ipv4_in(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & _LOW_32_BITS)
    return address.ipv4_mapped or address.sixtofour
