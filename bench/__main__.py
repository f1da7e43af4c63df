"""Where the command begins: what comes before the command line itself is read, an interruption included."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    try:
        from bench.cli import main as command
    except KeyboardInterrupt:
        print("bench: interrupted before anything was begun", file=sys.stderr)
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
