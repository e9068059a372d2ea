"""The life of a call: accept it for later, run it when its turn comes, tell what became of it, end it.

    submission   record committed -> id dispatched -> 202
    acceptance   how it gets on disk and in line: with one write where the queue is beside the records
    execution    id leased -> attempt begun (the record counts it) -> run by the agent -> attempt finished -> id acked
    firing       a schedule is due -> record committed and schedule moved on -> id dispatched
    memory_share how much of a node's memory queued calls may use
    retries      whether a failed attempt is followed by another
    lookup       what is known of a call, wherever that is: here while it runs, remembered, in the database
    control      cancel one or many
    dead_letters retry by hand what has ended, one or many
    outside      the same for workers that are not ours
    waiting      who waits for something to happen to a call
    events       what happens to calls, published to who listens
    relay        the same between the nodes on one database
    following    one call as a stream: its states, attempts (history) and log

The database is the truth: an attempt may only finish the call while it is its latest, and the sweeper dispatches
again whatever is unfinished and unknown to the queue. Sync calls go straight from the data plane to the agent; here
they are only looked up and cancelled.
"""

__all__: list[str] = []
