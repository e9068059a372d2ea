"""`make soak`: a million calls and more; fails when the node holds more afterwards than after the first tenth."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import docker

from tests.functions.build import ensure_images
from tests.soak.run import soak
from tests.support.docker import DOCKER_HOST
from tests.support.node import App, running_node


def main() -> int:
    """Soak a node of its own, print what it held, return 1 when it leaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000, help="warm calls; of the other kinds there are fewer")
    options = parser.parse_args()
    ensure_images()
    engine = docker.APIClient(base_url=DOCKER_HOST, version="auto")
    with tempfile.TemporaryDirectory(prefix="faas-soak-") as folder, running_node(Path(folder), engine) as node:
        app = App(node)
        leaks = soak(app, calls=options.calls, report=lambda line: print(line, flush=True))
        app.close()
    for leak in leaks:
        sys.stderr.write(f"leaked: {leak}\n")
    return 1 if leaks else 0


if __name__ == "__main__":
    raise SystemExit(main())
