"""Everything that the queue keeps in Redis, drawn in one place.

    {faas}:queue:calls                    HASH    call id -> its ticket, as JSON (below); of calls in line or leased
    {faas}:queue:stream:<priority>:<app>  STREAM  an app's due calls, field `id`; group `workers`: new = in line,
                                                  pending = leased
    {faas}:queue:turns:<priority>         ZSET    app with calls in line -> its place in the round, first to last
    {faas}:queue:leases:<priority>        ZSET    call id -> instant (ms) at which its lease runs out, or was given back
    {faas}:queue:delayed                  ZSET    call id -> instant (ms) at which it is due
    {faas}:queue:wake                     STREAM  at most one entry: something changed; lessees block on it

    ticket: p priority, f fairness key (the app), e its entry in the stream (absent while delayed), t token and o owner
            of its lease (absent while nobody holds it)

A call is in `calls` and either in `delayed`, or in one stream (in line), or in that stream and in `leases`. All its
moves are Lua scripts, so it never is half way. An app's stream lives as long as it has calls in line or leased. An
empty queue keeps one key, `wake`.

Nothing has a TTL: work must not vanish, and all that comes in line leaves by ack or discard. Instants are by the
server's clock. The braces put all keys into one slot of a Redis Cluster.
"""

from __future__ import annotations

from faas.queue.base import MAX_PRIORITY

__all__ = ["CALLS", "DELAYED", "GROUP", "KEYS", "LEASES", "NAMESPACE", "RESTING", "STREAMS", "TURNS", "WAKE"]

NAMESPACE = "{faas}:queue:"
PRIORITIES = tuple(range(MAX_PRIORITY + 1))

CALLS = NAMESPACE + "calls"
DELAYED = NAMESPACE + "delayed"
WAKE = NAMESPACE + "wake"
STREAMS = NAMESPACE + "stream:"
"""How the names of the streams begin."""

LEASES = tuple(f"{NAMESPACE}leases:{priority}" for priority in PRIORITIES)
TURNS = tuple(f"{NAMESPACE}turns:{priority}" for priority in PRIORITIES)

KEYS = [CALLS, DELAYED, WAKE, STREAMS, *LEASES, *TURNS]
"""What every script gets as KEYS, in the order that `scripts/common.lua` names them."""

RESTING = {WAKE}
"""The keys of an empty queue."""

GROUP = "workers"
"""Of each stream. Its one consumer, `faas`, is all nodes: a lease says who holds a call, and consumers of dead nodes
would pile up."""
