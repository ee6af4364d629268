"""The documents say what is there: commands that exist, the map of the files, figures from results."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from cellingua.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "cellingua"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def script(name: str) -> ModuleType:
    """Return a script of ``scripts/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_lines() -> list[str]:
    """Return every line of the shell blocks of all documents, without comments."""
    lines: list[str] = []
    for path in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            lines += [line for line in block.splitlines() if line.strip()]
    return lines


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("cellingua ")])
def test_every_command_is_understood(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    assert build_parser().parse_args(words).verb == words[0]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    texts = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    asked = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", texts, re.MULTILINE)) - {"bench-NAME"}
    assert {"demo", "test"} <= asked
    assert asked <= targets


def test_the_map_lists_every_file_and_no_other() -> None:
    files = {
        str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"
    }  # fmt: skip
    listed = re.findall(
        r"^\| `([\w/]+\.py)` \|", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == sorted(files)


def test_every_dependency_has_its_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=!~ \[;]", line)[0] for line in project["dependencies"]}
    table = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8").split("## Extras")[0]
    assert needed == set(re.findall(r"^\| ([\w-]+) \|", table, re.MULTILINE)) - {"package"}


def test_every_link_to_a_file_leads_somewhere() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def result(figures: dict) -> str:
    """Return a result as a benchmark writes it."""
    return json.dumps({
        "name": "tokens",
        "ok": False,
        "bars": {"ratio": {"value": 5.5, "bar": ">= 6", "ok": False}},
        "figures": figures,
        "seeds": {"counts": 3},
        "data": {},
        "versions": {"numpy": "9.9"},
        "hardware": {"processor": "A|B", "cores": 4, "usable_cores": 2, "memory_gib": 8, "system": "Linux"},
    })  # fmt: skip


def test_figures_come_from_results_and_a_missed_bar_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = script("write_figures")
    monkeypatch.setattr(writer, "RESULTS", tmp_path)
    end = "<!-- end -->\n"
    document = f"before\n<!-- figures:tokens -->\ntyped\n{end}between\n<!-- figures:overview -->\n{end}after\n"
    empty = writer.fill(document)
    assert "typed" not in empty
    assert "Not measured yet: run `make bench-tokens`." in empty
    assert "5,678 cells/s" not in empty

    figures = {"ours_cells_per_second": 5678, "loop_cells_per_second": 900, "deep": {"a": {"x": 1}, "b": {"x": 2}}}
    (tmp_path / "tokens.json").write_text(result(figures), encoding="utf-8")
    filled = writer.fill(document)
    assert "| ratio | 5.5 | >= 6 | **missed** |" in filled
    assert "5,678 cells/s" in filled
    assert "900 cells/s" in filled
    assert "| deep · b | 2 |" in filled
    assert "numpy 9.9" in filled
    assert "Seeds: counts 3." in filled
    assert [line for line in filled.splitlines() if line in ("before", "between", "after")] == [
        "before",
        "between",
        "after",
    ]
    assert writer.fill(filled) == filled


def test_a_licence_of_the_gpl_family_is_refused() -> None:
    checker = script("check_licences")
    for licence in ("GPL-3.0-or-later", "LGPLv3", "GNU General Public License v2 (GPLv2)", "MIT AND AGPL-3.0"):
        assert checker.is_copyleft(licence), licence
    for licence in ("MIT", "BSD-3-Clause", "MPL-2.0", "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1"):
        assert not checker.is_copyleft(licence), licence


def test_the_installed_closure_holds_no_gpl() -> None:
    checker = script("check_licences")
    needed, _ = checker.closure("cellingua")
    assert {"torch", "anndata", "jinja2"} <= needed.keys()
    assert not [name for name in needed if checker.is_copyleft(checker.licence_of(name))]
