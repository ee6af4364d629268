"""A diagnosis in words, as ``cellingua doctor FILE`` prints it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellingua.cells.diagnosis import Diagnosis

WIDTH = 100
LABEL = 10
MOST_FINDINGS = 14
_WAYS = {
    "ensembl": "by Ensembl id",
    "symbol": "by symbol",
    "previous": "by an older symbol",
    "alias": "by an older symbol or alias",
    "case": "by another spelling",
}


def _row(label: str, text: str, width: int = LABEL) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - width - 2, break_long_words=False) or [""]
    return [f"{label if i == 0 else '':<{width}}  {line}" for i, line in enumerate(lines)]


def count_of(k: int, what: str) -> str:
    """Return "1 cell" or "1,200 cells"."""
    return f"{k:,} {what}{'' if k == 1 else 's'}"


def printable(text: str) -> str:
    """Return `text` on one line, without control characters (names in files are data, also for a terminal)."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as aligned text of fewer than 40 lines."""
    lines = _row("file", f"{printable(diagnosis.name)} ({diagnosis.kind})")
    lines += _row("size", f"{diagnosis.n_cells:,} cells × {diagnosis.n_columns:,} columns")
    if diagnosis.place:
        seen = "all cells" if diagnosis.cells_examined == diagnosis.n_cells else (
            f"{diagnosis.cells_examined:,} cells spread over the file"
        )  # fmt: skip
        lines += _row("values", f"{diagnosis.taken_as} from {printable(diagnosis.place)} (judged from {seen})")
    lines += _row("species", diagnosis.species or "not recognised")
    match = diagnosis.match
    if match is not None and diagnosis.species in ("human", ""):
        summary = match.summary()
        ways = ", ".join(f"{summary[way]:,} {text}" for way, text in _WAYS.items() if summary[way])
        lines += _row(
            "genes",
            f"{summary['mapped']:,} of {summary['columns']:,} columns are {summary['genes']:,} known coding genes "
            f"({ways or 'none'}), from {printable(diagnosis.gene_source)}",
        )
        if diagnosis.share_of_counts_mapped:
            lines += _row("", f"they hold {diagnosis.share_of_counts_mapped:.1%} of the counts")
    lines.append("")
    order = {"refusal": 0, "warning": 1, "note": 2, "ok": 3}
    findings = sorted(diagnosis.findings, key=lambda finding: order[finding.level])
    for finding in findings[:MOST_FINDINGS]:
        advice = f" → {finding.advice}." if finding.advice else ""
        lines += _row(finding.level, printable(finding.text + advice))
    if len(findings) > MOST_FINDINGS:
        lines += _row("", f"and {len(findings) - MOST_FINDINGS} more notes")
    lines.append("")
    lines += _row("verdict", "refused: see above" if diagnosis.refused else "can be used")
    return "\n".join(lines)
