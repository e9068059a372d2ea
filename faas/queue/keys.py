"""Everything that the queue keeps in Redis, drawn in one place.

    {faas}:queue:calls              HASH    call id -> its ticket, as JSON (below); only of calls in line or leased
    {faas}:queue:stream:<priority>  STREAM  due calls, field `id`; group `workers`: new = waiting, pending = leased
    {faas}:queue:leases:<priority>  ZSET    call id -> instant (ms) at which its lease runs out, or was given back
    {faas}:queue:delayed            ZSET    call id -> instant (ms) at which it is due
    {faas}:queue:wake               STREAM  at most one entry: something changed; lessees block on it

    ticket: p priority, f fairness key, e its entry in the stream (absent while delayed), t token and o owner of
            its lease (absent while nobody holds it)

A call is in `calls` and either in `delayed`, or in one stream (waiting), or in that stream and in `leases`. All its
moves are Lua scripts, so it never is half way. An empty queue keeps the three empty streams with their groups and
`wake`: four keys.

Nothing has a TTL: work must not vanish, and all that comes in line leaves by ack or discard. Instants are by the
server's clock. The braces put all keys into one slot of a Redis Cluster.
"""

from __future__ import annotations

from faas.queue.base import MAX_PRIORITY

__all__ = ["CALLS", "DELAYED", "GROUP", "KEYS", "LEASES", "NAMESPACE", "RESTING", "STREAMS", "WAKE"]

NAMESPACE = "{faas}:queue:"
PRIORITIES = tuple(range(MAX_PRIORITY + 1))

CALLS = NAMESPACE + "calls"
DELAYED = NAMESPACE + "delayed"
WAKE = NAMESPACE + "wake"
STREAMS = tuple(f"{NAMESPACE}stream:{priority}" for priority in PRIORITIES)
LEASES = tuple(f"{NAMESPACE}leases:{priority}" for priority in PRIORITIES)

KEYS = [CALLS, DELAYED, WAKE, *STREAMS, *LEASES]
"""What every script gets as KEYS, in the order that `scripts/common.lua` names them."""

RESTING = {WAKE, *STREAMS}
"""The keys of an empty queue."""

GROUP = "workers"
"""Its one consumer, `faas`, is all nodes: a lease says who holds a call, and consumers of dead nodes would pile up."""
