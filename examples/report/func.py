"""Adds up amounts, slowly: a call that nobody wants to wait for.

Standard input is {"title": "...", "amounts": [...]}, standard output is the report; the progress on standard error
becomes the call's log.
"""

import json
import sys
import time

WORK_S = 2.0


def main() -> None:
    """Read the order, work on it, print the report."""
    order = json.loads(sys.stdin.read() or "{}")
    amounts = order.get("amounts") or [0]
    total = 0
    for number, amount in enumerate(amounts, start=1):
        time.sleep(WORK_S / len(amounts))
        total += amount
        print(f"{number} of {len(amounts)} amounts added, {total} so far", file=sys.stderr, flush=True)
    report = {"title": order.get("title", "untitled"), "total": total, "mean": total / len(amounts)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
