"""Choose the place of a file that its counts are taken from."""

from __future__ import annotations

import numpy as np

from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.reading import CellFile
from cellingua.cells.recovery import SPOKEN as SPOKEN_TRANSFORM
from cellingua.cells.values import SPOKEN, Look, look_at

# Earlier is better; the kinds of a group are equally good.
_USABLE = (("counts",), ("recoverable",), ("fractional",), ("normalised",), ("binary",))
_NAMES = ("layers/counts", "layers/raw_counts", "layers/count", "layers/raw", "layers/umi", "X", "raw/X")
_PARTS = {"spliced", "unspliced", "ambiguous", "mature", "nascent"}
_NO_COUNTS = "the file as it was before it was transformed: look for it in the repository the data came from"
_ADVICE = {
    "scaled": "save the counts before sc.pp.scale, or keep them in .layers['counts'] or .raw",
    "unit": "use the counts from before the genes were scaled",
    "corrected": "use the counts from before the correction; the model corrects for nothing, so none is needed",
    "ranked": "use the counts that the ranks were made from; ranking is done here",
    "nan": "remove these cells or genes, or name the layer that holds raw counts with --layer",
    "empty": "check how the file was written; name the layer that holds raw counts with --layer",
}


def choose_place(cells: CellFile, layer: str | None, diagnosis: Diagnosis) -> Look | None:
    """Return the look at the best place and add what is to be said about the places; None if there is none.

    Counts go before values from which counts can be recovered, these before other values; of equally good
    places the one by its usual name. A place with less than half the columns of another with proved counts
    gives way (``X`` of 2,000 variable genes, ``raw/X`` of all).
    """
    places = cells.places() if layer is None else [cells.place_of(layer)]
    looks = [look_at(cells, place) for place in places]
    if not looks:
        diagnosis.add("refusal", "no_values", "it holds no matrix: .X, .layers and .raw are empty.", _NO_COUNTS)
        return None
    usable = [look for look in looks if look.kind not in _ADVICE]
    if not usable:
        first = next((look for look in looks if look.place == "X"), looks[0])
        where = "; ".join(f"{look.place} holds {SPOKEN[look.kind]}" for look in looks[:4])
        detail = f" ({first.detail})" if first.detail else ""
        diagnosis.add("refusal", first.kind, f"no counts: {where}{detail}.", _ADVICE[first.kind])
        return None
    chosen = min(usable, key=_order)
    proved = [look for look in usable if look.kind in ("counts", "recoverable")]
    wider = [look for look in proved if look.n_columns > 2 * chosen.n_columns]
    if wider:
        chosen = min(wider, key=_order)
    _say_what_it_is(chosen, diagnosis)
    others = [look for look in looks if look.place != chosen.place]
    if others:
        listed = "; ".join(f"{look.place} holds {SPOKEN[look.kind]}" for look in others[:4])
        more = f"; {len(others) - 4} more" if len(others) > 4 else ""
        diagnosis.add("note", "other_places", f"not used: {listed}{more}.")
    return chosen


def _order(look: Look) -> tuple[int, bool, int]:
    group = next(i for i, kinds in enumerate(_USABLE) if look.kind in kinds)
    name = _NAMES.index(look.place) if look.place in _NAMES else len(_NAMES)
    return group, look.place.removeprefix("layers/") in _PARTS, name


def _say_what_it_is(look: Look, diagnosis: Diagnosis) -> None:
    recovery = look.recovery
    if look.kind == "counts":
        diagnosis.add("ok", "counts", f"{look.place} holds whole numbers from 0: counts.")
    elif look.kind == "binary":
        diagnosis.add(
            "warning",
            "binary",
            f"{look.place} holds only 0 and 1, so all genes of a cell look alike.",
            "use the counts from before they were cut to 0 and 1",
        )
    elif look.kind == "recoverable" and recovery is not None:
        diagnosis.add(
            "ok",
            "recovered",
            f"counts were recovered from {SPOKEN_TRANSFORM[recovery.transform]} in {look.place}: one scale per "
            f"cell makes them whole numbers, largest distance {recovery.largest_distance:.1g}.",
        )
    elif look.kind == "fractional":
        diagnosis.add(
            "note",
            "fractional",
            f"{look.place} holds no whole numbers, nor is it scaled per cell (expected counts of RSEM or salmon, "
            "or ambient RNA taken off): used as it is.",
        )
    elif recovery is not None:
        diagnosis.add(
            "warning",
            "relative",
            f"{look.place} holds {'what looks like ' if np.isnan(recovery.target) else ''}"
            f"{SPOKEN_TRANSFORM[recovery.transform]}, from which counts can't be recovered: used as relative "
            "expression within each cell.",
            "name the layer with raw counts by --layer, or use a file that has them: answers will be surer",
        )
