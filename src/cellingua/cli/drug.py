"""``cellingua drug rank | predict | explain | fit | evaluate | cells``: drug responses, for research."""

from __future__ import annotations

import argparse

from cellingua.cli import drug_cells, drug_explain, drug_fit, drug_rank

RESEARCH = (
    "For research, not for clinical use: predictions are learned from cancer cell lines in a dish and say nothing "
    "about any patient's treatment."
)


def add(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the verb with its kinds."""
    parser = verbs.add_parser(
        "drug",
        help="predict and rank drug responses of lines, tumours and clusters",
        description=f"Drug responses (ln IC50 and IC50 in µM) from expression. {RESEARCH}",
        epilog="Example: cellingua drug rank tumour.h5ad --cluster-key cell_type. Without a file, a shipped tumour.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, help="what to do")
    drug_rank.add_rank(kinds, common)
    drug_rank.add_predict(kinds, common)
    drug_explain.add_explain(kinds, common)
    drug_fit.add_fit(kinds, common)
    drug_fit.add_evaluate(kinds, common)
    drug_cells.add_cells(kinds, common)
