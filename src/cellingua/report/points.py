"""The cells of the interactive map, packed small: what the page's script reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from cellingua.report.layout import umap_layout
from cellingua.report.palette import RAMP, SHADES, colours_for
from cellingua.tasks.result import Annotation


def layout_of(result: Annotation, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells are drawn, int64 (m,), and where, float32 (m, 2)."""
    if result.graph is None:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.float32)
    graph = result.graph
    return graph.rows, umap_layout(result.embedding[graph.rows], graph.index, graph.distance, seed=seed)


def map_data(result: Annotation, rows: np.ndarray, points: np.ndarray) -> dict[str, Any]:
    """Return the map as JSON values; arrays are little-endian numbers in base64.

    Coordinates are quantised to 16 bits: a step of 1/65535 of the map's width, finer than any screen.
    """
    label_names = [label for label, _ in result.counts()]
    cluster_names = [row.name for row in result.clusters]
    data: dict[str, Any] = {
        "n": len(rows),
        "x": _quantised(points[:, 0]),
        "y": _quantised(-points[:, 1]),
        "aspect": _aspect(points),
        "labels": label_names,
        "colours": colours_for(label_names),
        "ramp": list(RAMP),
        "palette": list(SHADES),
        "label": _codes(result.labels[rows], label_names),
        "probability": _pack(np.round(result.probability[rows] * 255), "u1"),
        "clusters": cluster_names,
        "cluster_labels": [row.label for row in result.clusters],
        "cluster": _codes(result.cluster[rows], cluster_names),
    }
    runners = sorted(set(result.runner_up[rows].tolist()))
    data["runners"], data["runner"] = runners, _codes(result.runner_up[rows], runners)
    for name, values in (("sample", result.samples), ("own", result.own)):
        if values is not None:
            names = sorted(set(values.tolist()))
            data[f"{name}s"], data[name] = names, _codes(values[rows], names)
    return data


def embedded_json(value: Any) -> str:
    """Return JSON that is safe inside a ``<script>`` element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _quantised(values: np.ndarray) -> str:
    """Return values scaled to 0..65535 as base64 of uint16."""
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    return _pack(np.round((values - low) / max(high - low, 1e-12) * 65535), "u2")


def _aspect(points: np.ndarray) -> float:
    """Return width over height of the map, within what a screen can show."""
    if len(points) < 2:
        return 1.0
    width, height = np.ptp(points, axis=0)
    return float(np.clip(width / max(float(height), 1e-9), 0.6, 1.9))


def _codes(values: np.ndarray, names: list[str]) -> str:
    """Return the position of each value in `names` as base64 of uint16."""
    place = {name: number for number, name in enumerate(names)}
    return _pack(np.array([place[value] for value in values.tolist()], dtype=np.float64), "u2")


def _pack(values: np.ndarray, kind: str) -> str:
    """Return numbers as base64 of little-endian unsigned integers of `kind`."""
    return base64.b64encode(values.astype(f"<{kind}").tobytes()).decode("ascii")
