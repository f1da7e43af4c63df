"""What each process of the torchrun launcher runs: ``python -m bench.launchers.sharing REQUEST OPTIONS``, both JSON."""

from __future__ import annotations

import json
import os
import sys

from bench.api import share
from bench.errors import BenchError
from bench.ranks import of_torchrun
from bench.request import Request


def main(request: str, options: str) -> int:
    """Make this rank's share; the exit code is 2 after a refusal, which the process that asked meets and says too."""
    ranks = of_torchrun()
    if ranks is None:
        print("bench.launchers.sharing is started by the launcher alone", file=sys.stderr)
        return 2
    try:
        share(Request.model_validate_json(request), ranks, **json.loads(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # torch's own threads now and then abort the interpreter's shutdown, when all work is done.
    os._exit(code)
