"""``cellingua drug explain``: which genes, and which atoms of a new molecule, a prediction rests on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellingua.cli.drug_rank import ENDINGS, add_input, add_running, names_of
from cellingua.core.errors import InputError

if TYPE_CHECKING:
    from cellingua.tasks.drug_explain import DrugExplanation


def add_explain(kinds: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add ``explain``."""
    parser = kinds.add_parser(
        "explain",
        parents=[common],
        help="which genes, and which atoms of a new molecule, a prediction rests on",
        description="Explain predictions by the genes that carry them and, for new molecules, by their atoms (captum; "
        "needs cellingua[drug]). Each explanation is checked: the prediction without its first genes or atoms, beside "
        "the prediction without as many at random. What carries a prediction is no mechanism. Results go to "
        "NAME_drugs_explained/ beside the file. For research, not for clinical use.",
        epilog="Example: cellingua drug explain lines.csv --drugs 'Trametinib; Dabrafenib' --sample A375",
    )
    parser.add_argument("file", metavar="FILE", help="cells, or a table, lines x genes")
    add_input(parser)
    parser.add_argument("--sample", action="append", metavar="NAME", help="a line or cluster; may be given again (all)")
    parser.add_argument("--top", type=int, default=30, metavar="N", help="genes in the table (default: 30)")
    parser.add_argument("--out-dir", metavar="DIR", help="where NAME_drugs_explained/ goes (default: beside FILE)")
    add_running(parser)
    parser.set_defaults(run=run_explain)


def run_explain(args: argparse.Namespace) -> int:
    """Explain predictions for one input."""
    from cellingua.cli.outputs import refuse_same, staged
    from cellingua.core.files import refuse_overwrite
    from cellingua.core.progress import Console, Silent
    from cellingua.core.runtime import set_threads
    from cellingua.models.drug_bundle import load_drug_model
    from cellingua.tasks.drug_explain import drug_explain
    from cellingua.tasks.drug_pairs import read_smiles

    if args.top < 1:
        raise InputError(f"{args.top} genes were asked for.", "1 or more")
    set_threads(args.threads)
    source = Path(args.file)
    folder = folder_for(source, args.out_dir)
    places = {name: folder / name for name in ("genes.tsv", "atoms.tsv", "explanation.json", "genes.svg")}
    for path in places.values():
        refuse_same(source, path)
        refuse_overwrite(path, force=args.force, file=True)
    molecules = read_smiles(args.smiles, salts=args.salts) if args.smiles else []
    told = drug_explain(
        source, () if args.drugs is None else names_of(args.drugs), samples=args.sample, molecules=molecules,
        model=load_drug_model(args.model), cluster_key=args.cluster_key, whole=args.whole, bulk=args.bulk,
        genes_in_rows=args.genes_in_rows, layer=args.layer, level=args.level,
        progress=Silent() if args.quiet else Console(),
    )  # fmt: skip
    atoms = folder / "atoms"
    with staged([*places.values(), atoms]) as partial:
        summary = _write(told, {name: partial[path] for name, path in places.items()}, partial[atoms], args.top)
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    elif not args.quiet:
        print(text(told))
        print(f"\nwritten to {folder}")
    return 0


def folder_for(source: Path, out_dir: str | None) -> Path:
    """Return where the explanation of a file goes."""
    name = source.resolve().name
    ending = next((end for end in ENDINGS if name.lower().endswith(end) and len(name) > len(end)), "")
    stem = name[: len(name) - len(ending)]
    return (Path(out_dir) if out_dir else source.resolve().parent) / f"{stem}_drugs_explained"


def _write(told: DrugExplanation, places: dict[str, Path], atoms: Path, top: int) -> dict[str, Any]:
    """Write tables, summary and pictures; atoms only where a molecule was asked about."""
    from cellingua.report.drug_effects import atoms_svg, draw_genes

    told.to_frame(top).to_csv(places["genes.tsv"], sep="\t", float_format="%.5g", index=False)
    draw_genes(told, places["genes.svg"])
    if told.atoms:
        told.atoms_frame().to_csv(places["atoms.tsv"], sep="\t", float_format="%.5g", index=False)
        atoms.mkdir()
        for number, molecule in enumerate(told.atoms, start=1):
            for sample in range(len(told.genes.samples)):
                # Numbers, not names: names are other people's text.
                picture = atoms_svg(molecule, sample)
                (atoms / f"drug_{number}_sample_{sample + 1}.svg").write_text(picture, encoding="utf-8")
    summary = told.summary()
    body = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    places["explanation.json"].write_text(body, encoding="utf-8")
    return summary


def text(told: DrugExplanation, *, most: int = 12, first: int = 6) -> str:
    """Return the explanations for people."""
    from cellingua.cells.wording import printable

    lines: list[str] = []
    for entry in told.summary(first)["predictions"][:most]:
        name, drug = printable(entry["sample"]), printable(entry["drug"])
        absent, average = entry["deletion"]["absent"], entry["deletion"]["average"]
        lines += [
            "",
            f"{name}, {drug}: ln IC50 {entry['ln_ic50']:.2f}, typical lines {entry['reference_ln_ic50']:.2f}",
            "  genes  " + ", ".join(f"{printable(gene)} {value:+.3f}" for gene, value in entry["genes"].items()),
            f"  check  its first {absent['parts']} genes gone: {absent['moved_by_first']:+.2f} towards typical lines "
            f"(random genes {absent['moved_by_random']:+.2f}); made average: {average['moved_by_first']:+.2f} "
            f"({average['moved_by_random']:+.2f})",
        ]
        if "atoms" in entry:
            atoms = entry["deletion"]["atoms"]
            lines.append(
                f"  check  its first {atoms['parts']} atoms left out: {atoms['moved_by_first']:+.2f} (random atoms "
                f"{atoms['moved_by_random']:+.2f})"
            )
        lines += [f"  ! {printable(warning)}" for warning in entry["warnings"]]
    return "\n".join([*lines, "", "Negative effects speak for sensitivity. For research, not for treatment."])
