"""Colours that people with any colour vision can tell apart, on light and on dark ground."""

from __future__ import annotations

# Paul Tol's "muted" and "bright" schemes, ordered so that the first eight are furthest apart.
COLOURS = (
    "#4477aa", "#cc6677", "#ddaa33", "#228877", "#88ccee", "#aa4499", "#999933", "#ee8866",
    "#6655aa", "#44bb99", "#882255", "#bbaa66", "#77aadd", "#ee99aa", "#337733", "#aa7744",
)  # fmt: skip
GREY = "#a9adb5"
# Stops of cividis, dark to light: probability.
RAMP = ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838")


def colours_for(labels: list[str]) -> list[str]:
    """Return a colour for each label; ``unknown`` is grey.

    Beyond the palette come its darker, then its lighter shades, and only then do colours repeat.
    """
    found, place = [], 0
    for label in labels:
        if label == "unknown":
            found.append(GREY)
        else:
            found.append(SHADES[place % len(SHADES)])
            place += 1
    return found


def _mixed(colour: str, other: int, share: float) -> str:
    """Return `colour` mixed with a grey level `other` (0 black, 255 white)."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part * (1 - share) + other * share):02x}" for part in parts)


SHADES = (
    *COLOURS,
    *(_mixed(colour, 0, 0.38) for colour in COLOURS),
    *(_mixed(colour, 255, 0.45) for colour in COLOURS),
)
