"""``cellingua``: reads the command line, calls one verb, and turns errors into exit codes.

Nothing heavy is imported here or in the verbs' modules, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from cellingua import __version__
from cellingua.cli import annotate, bench, convert, doctor, drug, embed, finetune, models, pretrain, texts
from cellingua.core.errors import CellinguaError

VERBS = (annotate, bench, convert, doctor, drug, embed, finetune, models, pretrain, texts)
INTERRUPTED, TERMINATED = 130, 143
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="cellingua",
        description="Names single cells from plain words, offline, on a laptop.",
        epilog="Exit codes: 0 done, 1 failed while working, 2 the input or the call is wrong, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"cellingua {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in VERBS:
        module.add(verbs, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
    _set_threads(getattr(args, "threads", None))
    with _terminable():
        try:
            code = int(args.run(args))
            sys.stdout.flush()
            return code
        except CellinguaError as error:
            print(f"cellingua: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("\ncellingua: interrupted; nothing was left half-written.", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of our output (head, less) has gone: point stdout elsewhere so that exit stays quiet.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:
            if args.debug:
                traceback.print_exc()
            else:
                said = " ".join(str(error).split())[:300]
                print(
                    f"cellingua: something unexpected went wrong ({type(error).__name__}: {said}). "
                    "Add --debug for the traceback, and please report it.",
                    file=sys.stderr,
                )
            return 1


def _set_threads(threads: int | None) -> None:
    """Set the threads of the numeric libraries, which read the environment when they are loaded."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if threads is not None:
        for name in THREAD_SETTINGS:
            os.environ[name] = str(max(threads, 1))
    elif "numpy" not in sys.modules:
        for name in THREAD_SETTINGS:
            os.environ.setdefault(name, str(usable))


@contextlib.contextmanager
def _terminable():  # type: ignore[no-untyped-def]
    """Let SIGTERM unwind the stack, so that partial files are removed, and exit with 143."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: the signal is someone else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(main())
