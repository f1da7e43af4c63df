"""Streams and exit codes: the result alone on stdout, everything else on stderr, one sentence for a refusal."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from bench import interruption, text
from bench.errors import BenchError

INTERRUPTED = (
    "interrupted; stored features and finished suites are kept, and the same command goes on where this stopped"
)


def answer(command: Callable[[], object]) -> NoReturn:
    """Carry out ``command`` and leave with its exit code: 0, or 2 after one sentence on stderr."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    interruption.heed()
    try:
        _answer(command)
    except KeyboardInterrupt:
        refuse(INTERRUPTED)


def _answer(command: Callable[[], object]) -> NoReturn:
    try:
        code = command()
        interruption.ignore()
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except BenchError as error:
        # A worker that the same signal ended may have been noticed first.
        refuse(INTERRUPTED if interruption.came() else str(error))
    except SystemExit as leaving:
        # typer turns Ctrl-C into this code, without a word.
        if leaving.code == 130:
            refuse(INTERRUPTED)
        raise
    except BrokenPipeError:
        # The reader of our output left: nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:
        if os.environ.get("BENCH_DEBUG"):
            raise
        # What Python still holds for a stdout that takes no more must not speak after us.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        refuse(f"{error.filename or 'the output'} could not be read or written: {error.strerror or error}")
    except Exception as error:
        # typer brings its own copy of click's exceptions, or uses click's: what they can do tells them, not the class.
        if isinstance(code := getattr(error, "exit_code", None), int):
            sentence = error.format_message() if hasattr(error, "format_message") else ""
            if sentence:
                refuse(sentence)
            # No sentence: help was shown, by `exit` or because nothing was asked for.
            sys.exit(0)
        if type(error).__name__ == "Abort" or interruption.came():
            refuse(INTERRUPTED)
        if os.environ.get("BENCH_DEBUG"):
            raise
        refuse(
            f"a defect in bench, not in your input: {type(error).__name__}: {error} "
            f"(set BENCH_DEBUG=1 for the traceback, and please report it)"
        )


def refuse(sentence: str) -> NoReturn:
    """One sentence on stderr, exit code 2."""
    interruption.ignore()
    print(f"bench: {text.sentence(sentence)}", file=sys.stderr, flush=True)
    if interruption.came():
        # An interruption that fell into generated code (a dataclass in the making) makes CPython end by the signal
        # itself, whatever the exit code says.
        atexit._run_exitfuncs()
        os._exit(2)
    sys.exit(2)


@contextlib.contextmanager
def result() -> Iterator[int]:
    """Within the block everything that any library prints goes to stderr; yields the real stdout's descriptor."""
    sys.stdout.flush()
    real = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield real
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)


def emit(document: str, descriptor: int) -> None:
    """Write the result, with one newline at its end, to a descriptor that `result` yielded."""
    # A path in it may hold bytes that are no UTF-8.
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(document if document.endswith("\n") else document + "\n")


def write(path: Path, document: str, *, append: bool = False) -> None:
    """Write ``document`` whole; ``append`` adds it to what is there, as a job's summary page wants it."""
    from bench.files import refusal, write_atomically

    if not append:
        # A link stays one, /dev/stdout above all: what it leads to is written.
        write_atomically(Path(os.path.realpath(path)), document.encode())
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(document)
    except OSError as error:
        raise refusal(error, path) from error
