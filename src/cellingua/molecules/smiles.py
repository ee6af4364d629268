"""Molecules from SMILES: what they are called, which compound they are, and what a model sees of them.

RDKit reads them; it is an extra (``pip install 'cellingua[drug]'``) and is imported when the first one is read. Salts
and mixtures, several fragments in one SMILES, are kept as written or stripped to the largest organic fragment by
choice. Stripping is wrong where two fragments make the drug together, as in older SMILES of platinum compounds, so
what has a metal is never stripped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

#: Elements that a fragment may hold and still be stripped from, or to, another.
_SYMBOLS = "H B C N O F Si P S Cl Se Br I Li Na K Mg Ca"
_ORGANIC = frozenset(_SYMBOLS.split())
#: Of the fingerprints that `likeness` compares.
BITS = 2048


@dataclass(frozen=True)
class Molecule:
    """One drug.

    Attributes
    ----------
    name
        As its table calls it.
    smiles
        RDKit's canonical SMILES of what is used: all fragments, or the largest.
    inchikey
        Of what was written, fragments included: the identity of a compound.
    fragments
        How many were written.
    scaffold
        Bemis and Murcko's, as SMILES; of a molecule without rings the empty text.
    """

    name: str
    smiles: str
    inchikey: str
    fragments: int
    scaffold: str


def read_molecules(names: Sequence[str], smiles: Sequence[str], *, salts: str = "keep") -> list[Molecule]:
    """Read SMILES, one a name.

    Parameters
    ----------
    names, smiles
        (n,), in the same order.
    salts
        ``keep`` all fragments, or ``strip`` to the largest one (by heavy atoms, then weight, then text) where every
        fragment is free of metals other than counter-ions.

    Raises
    ------
    InputError
        A SMILES is empty or can't be read: its row, counted from 1, and its name are given. RDKit is not installed.
    """
    if salts not in ("keep", "strip"):
        raise InputError(f"{salts!r} is nothing to do with salts.", "keep or strip")
    if len(names) != len(smiles):
        raise InputError(f"{len(names)} names have {len(smiles)} SMILES.", "one each")
    bad: list[str] = []
    found: list[Molecule] = []
    for row, (name, text) in enumerate(zip(names, smiles, strict=True), start=1):
        parsed = _parse(text) if isinstance(text, str) and text.strip() else None
        if parsed is None:
            bad.append(f"row {row} ({name}): {text!r}")
        else:
            found.append(_molecule(str(name), parsed, salts))
    if bad:
        more = f", and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        raise InputError(
            f"{len(bad):,} of {len(names):,} SMILES can't be read: {', '.join(bad[:5])}{more}.",
            "a SMILES for each drug",
            "leaving these rows out, or mending them",
        )
    return found


def same_compounds(molecules: Sequence[Molecule]) -> dict[str, str]:
    """Return name -> InChIKey, as `molecules.response.responses` takes to count one compound once."""
    return {molecule.name: molecule.inchikey for molecule in molecules}


def fingerprints(molecules: Sequence[Molecule], *, radius: int = 2, bits: int = 1024) -> NDArray[np.uint8]:
    """Return Morgan fingerprints, uint8 (n, bits) of 0 and 1 (radius 2 is ECFP4)."""
    made = _rdkit("rdFingerprintGenerator").GetMorganGenerator(radius=radius, fpSize=bits)
    out = np.zeros((len(molecules), bits), np.uint8)
    for row, molecule in enumerate(molecules):
        out[row] = made.GetFingerprintAsNumPy(_parsed(molecule.smiles))
    return out


def likeness(molecules: Sequence[Molecule]) -> NDArray[np.float64]:
    """Return how alike molecules are, float64 (n, n) between 0 and 1: a kernel for what was never tried.

    The mean of three Tanimoto coefficients: of Morgan fingerprints (radius 2), and of the counts of atom pairs and of
    topological torsions, which see how far apart the same groups stand.
    """
    made = _rdkit("rdFingerprintGenerator")
    parsed = [_parsed(molecule.smiles) for molecule in molecules]
    morgan = fingerprints(molecules, bits=BITS)
    total = tanimoto(morgan, morgan)
    for generator in (made.GetAtomPairGenerator(fpSize=BITS), made.GetTopologicalTorsionGenerator(fpSize=BITS)):
        counts = np.array([generator.GetCountFingerprintAsNumPy(one) for one in parsed], dtype=np.float64)
        total = total + _shared_counts(counts)
    return np.asarray(total / 3)


def _shared_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return common over combined counts of each pair of rows; 0 where neither has any, 1 for a row with itself."""
    size = counts.sum(axis=1)
    common = np.array([np.minimum(row, counts).sum(axis=1) for row in counts])
    union = size[:, None] + size[None, :] - common
    out = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    np.fill_diagonal(out, 1.0)
    return out


def tanimoto(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the share of common bits, float64 (n, m), of fingerprints (n, bits) and (m, bits); 0 where none is set."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    common = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _molecule(name: str, parsed: Mol, salts: str) -> Molecule:
    chem = _rdkit()
    pieces = list(chem.GetMolFrags(parsed, asMols=True))
    used = parsed
    if salts == "strip" and len(pieces) > 1 and all(_organic(piece) for piece in pieces):
        used = max(pieces, key=lambda p: (p.GetNumHeavyAtoms(), sum(a.GetMass() for a in p.GetAtoms()), _text(p)))
    scaffold = _rdkit("Scaffolds.MurckoScaffold").MurckoScaffoldSmiles(mol=used)
    return Molecule(name, _text(used), chem.MolToInchiKey(parsed), len(pieces), scaffold)


def _organic(piece: Mol) -> bool:
    return all(atom.GetSymbol() in _ORGANIC for atom in piece.GetAtoms())


def _text(molecule: Mol) -> str:
    return str(_rdkit().MolToSmiles(molecule))


def _parsed(smiles: str) -> Mol:
    parsed = _parse(smiles)
    if parsed is None:
        raise InputError(f"The SMILES {smiles!r} can't be read.", "a SMILES")
    return parsed


def _parse(smiles: str) -> Mol | None:
    """Return RDKit's molecule, or None; what RDKit would write to the screen about it is kept back."""
    chem = _rdkit()
    with _rdkit("rdBase", package="rdkit").BlockLogs():
        molecule = chem.MolFromSmiles(smiles.strip())
    return None if molecule is None or not molecule.GetNumAtoms() else molecule


def _rdkit(module: str = "", package: str = "rdkit.Chem") -> Any:
    """Return ``rdkit.Chem``, or a module below it or below `package`, or say how to get RDKit."""
    import importlib

    try:
        return importlib.import_module(f"{package}.{module}" if module else package)
    except ModuleNotFoundError as error:
        raise InputError(
            "Reading SMILES needs RDKit, which is not installed.", "", "pip install 'cellingua[drug]'"
        ) from error


def drawn(molecule: Molecule, colours: Mapping[int, tuple[float, float, float]], size: tuple[int, int]) -> str:
    """Return a molecule as SVG with atoms coloured.

    Parameters
    ----------
    colours
        Number of an atom -> red, green, blue between 0 and 1.
    size
        Width and height in pixels.
    """
    draw = _rdkit("Draw.rdMolDraw2D")
    canvas = draw.MolDraw2DSVG(*size)
    mol = _parsed(molecule.smiles)
    draw.PrepareAndDrawMolecule(
        canvas, mol, highlightAtoms=list(colours), highlightAtomColors=dict(colours), highlightBonds=[]
    )
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())
