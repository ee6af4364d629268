"""Options that several verbs share."""

from __future__ import annotations

import argparse

MODEL = "langcell_mini"


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add where and how loudly to run."""
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    group.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all this process may use)")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add which model reads which values."""
    parser.add_argument(
        "--model",
        default=MODEL,
        metavar="M",
        help=f"name or folder of a model (default: {MODEL}; see cellingua models)",
    )
    parser.add_argument(
        "--layer", metavar="L", help="layer that holds raw counts (X, raw or a name; default: found by the doctor)"
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add what a BERT cell tower computes in."""
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "int8"),
        default="auto",
        help="of a BERT cell tower: auto (default: bfloat16 where the device has it), float32 (exact), bfloat16, "
        "or int8 (weights in 8 bits)",
    )
