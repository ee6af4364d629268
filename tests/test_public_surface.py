"""What the world sees: names, documentation, help, quick answers; and what must never stand in the repository."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellingua
from cellingua import tl
from cellingua.cli import main

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "cellingua"
HEAVY = ("torch", "anndata", "pandas", "scanpy", "sklearn", "umap", "matplotlib", "numba", "scipy", "tokenizers")


def test_all_is_what_can_be_imported() -> None:
    assert sorted(set(cellingua.__all__)) == sorted(cellingua.__all__) == dir(cellingua)
    for name in cellingua.__all__:
        assert getattr(cellingua, name) is not None
    # What stands in __init__ under a public name, without standing in __all__, was left there by mistake.
    defined = {name for name in vars(cellingua) if not name.startswith("_")}
    rooms = {path.stem for path in SOURCE.iterdir()}
    assert defined - set(cellingua.__all__) - rooms - {"annotations", "importlib", "Any", "TYPE_CHECKING"} == set()
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = cellingua.nothing_like_this


def test_the_version_is_that_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] == cellingua.__version__  # type: ignore[index]


@pytest.mark.parametrize("name", tl.__all__)
def test_tools_are_documented_and_take_the_cells_first(name: str) -> None:
    tool = getattr(tl, name)
    parameters = list(inspect.signature(tool).parameters.values())
    assert parameters[0].name in ("adata", "cells")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 3
    documentation = inspect.getdoc(tool) or ""
    for heading in ("Parameters\n----------", "Raises\n------"):
        assert heading in documentation
    told = {word.strip() for line in documentation.splitlines() if not line.startswith(" ") for word in line.split(",")}
    assert [p.name for p in parameters if p.name not in told] == []


def loaded_by(*arguments: str) -> set[str]:
    """Return the top packages that a fresh Python has loaded after it ran `arguments`."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert any(name.startswith("cellingua") for name in names)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import cellingua"),
        ("-m", "cellingua.cli.main", "--help"),
        ("-m", "cellingua.cli.main", "--version"),
        ("-m", "cellingua.cli.main", "annotate", "--help"),
    ],
    ids=" ".join,
)
def test_heavy_packages_wait_until_they_are_needed(arguments: tuple[str, ...]) -> None:
    assert sorted(loaded_by(*arguments) & set(HEAVY)) == []


def test_loading_is_seen() -> None:
    assert "pandas" in loaded_by("-c", "import cellingua, pandas")


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb."""
    (choices,) = (a.choices for a in main.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices)


def with_kinds(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of a verb, and those of its kinds if it has some."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def test_every_verb_has_help_and_stands_in_the_readme() -> None:
    told = main.build_parser().format_help()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(verbs()) >= 4
    for verb, parser in verbs().items():
        assert re.search(rf"^    {verb} +\S", told, re.MULTILINE), f"{verb} has no line in --help"
        for part in with_kinds(parser):
            assert part.description, part.prog
            silent = [action.dest for action in part._actions if not action.help]
            assert silent == [], f"{part.prog}: no help for {silent}"
        assert re.search(rf"\bcellingua {verb}\b", readme), f"README.md does not show 'cellingua {verb}'"


def test_the_readme_shows_no_verb_and_no_option_that_is_not_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    shown = re.findall(r"^cellingua (\S+)(.*)$", blocks, re.MULTILINE)
    for verb, rest in shown:
        if verb.startswith("-"):
            continue
        assert verb in verbs()
        options = re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0])
        known = {option for part in with_kinds(verbs()[verb]) for option in part._option_string_actions}
        assert [option for option in options if option not in known] == []


def test_every_public_function_and_class_is_documented() -> None:
    bare = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(SOURCE).as_posix()
        if not ast.get_docstring(tree):
            bare.append(where)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
                bare += [
                    f"{where}:{n.lineno} {n.name}"
                    for n in (node, *(methods if isinstance(node, ast.ClassDef) else ()))
                    if not ast.get_docstring(n)
                ]
    assert not bare, "\n".join(bare)


PICKLES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}


#: The one reader of pickles, whose `find_class` knows two names; tests/models/test_pickles.py attacks it.
RESTRICTED = re.compile(r"models/pickles\.py: line \d+ imports pickle")


def dangers(text: str) -> Iterator[str]:
    """Yield what could run code that a file brings along, or could read such a file."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if names == ["pickle"] and [alias.name for alias in node.names] == ["UnpicklingError"]:
                names = []  # the error alone, to catch it
        for name in names:
            if name.split(".")[0] in PICKLES:
                yield f"line {node.lineno} imports {name}"
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in RUNS_TEXT:
                yield f"line {node.lineno} calls {called.id}"
            if isinstance(called, ast.Attribute) and called.attr in ("read_pickle", "to_pickle", "unsafe_load"):
                yield f"line {node.lineno} calls {called.attr}"
            told = {keyword.arg: keyword.value for keyword in node.keywords}
            if _is(told.get("allow_pickle"), True) or _is(told.get("weights_only"), False):
                yield f"line {node.lineno} allows pickles"
            if _is(told.get("shell"), True):
                yield f"line {node.lineno} calls a shell"
            if isinstance(called, ast.Attribute) and ast.unparse(called) == "torch.load" and "weights_only" not in told:
                yield f"line {node.lineno} calls torch.load without weights_only"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_runs_what_a_file_brings_along() -> None:
    found = [
        f"{path.relative_to(SOURCE)}: {danger}"
        for path in sorted(SOURCE.rglob("*.py"))
        for danger in dangers(path.read_text(encoding="utf-8"))
    ]
    assert [danger for danger in found if not RESTRICTED.fullmatch(danger)] == []
    assert sum(bool(RESTRICTED.fullmatch(danger)) for danger in found) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "eval('1')",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
        "pd.read_pickle(path)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_a_danger_is_seen(text: str) -> None:
    assert len(list(dangers(text))) == 1


def test_what_is_safe_passes() -> None:
    assert not list(dangers("module.eval()\ntorch.load(path, weights_only=True)\nre.compile('x')\nimport json"))


def tracked() -> list[Path]:
    """Return every file that git tracks; skip where there is no git, or no repository (an unpacked sdist)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, or git is not installed")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name]


# Written in parts, so that this file does not find itself.
_MACHINE = re.compile("|".join([r"(?<![\w.])/" + r"work/", "/tmp" + r"/w\b", r"/root" + r"/", r"/home" + r"/[a-z]+/"]))


def test_no_file_names_the_machine_it_was_written_on() -> None:
    found = []
    paths = [path for path in tracked() if path.is_file()]
    assert len(paths) > 100
    for path in paths:
        content = path.read_bytes()
        if b"\0" in content or path.name == ".gitignore":
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if _MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_test_files_have_names_of_their_own() -> None:
    # Without packages of tests, pytest imports each file by its bare name.
    names = [path.name for path in sorted((ROOT / "tests").rglob("*.py")) if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_test_can_fail() -> None:
    """A test asserts, expects an error, lets one kind of error pass, or calls a function of its file that asserts."""
    idle = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        functions = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
        judges = {function.name for function in functions if _judges(function, set())}
        judges |= {function.name for function in functions if _judges(function, judges)}
        idle += [
            f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
            for function in functions
            if function.name.startswith("test_") and function.name not in judges
        ]
    assert not idle, "\n".join(idle)


def _judges(function: ast.FunctionDef, helpers: set[str]) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            if name in helpers or name.startswith(("assert_", "raises", "suppress", "gradcheck")):
                return True
    return False


@pytest.mark.parametrize(
    ("text", "judges"),
    [
        ("def test_a():\n    print(1)", False),
        ("def test_a():\n    assert True", False),
        ("def test_a():\n    assert f()", True),
        ("def test_a():\n    with pytest.raises(ValueError):\n        f()", True),
        ("def test_a():\n    same(1, 2)", True),
    ],
)
def test_an_idle_test_is_seen(text: str, judges: bool) -> None:
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert _judges(function, {"same"}) == judges


def test_the_bundled_json_is_json() -> None:
    presets = sorted((SOURCE / "data" / "recipes").glob("*.json"))
    assert presets
    for path in presets:
        assert json.loads(path.read_text(encoding="utf-8"))["name"] == path.stem


@pytest.mark.parametrize("name", sorted(path.stem for path in (SOURCE / "cli").glob("*.py") if path.stem != "__init__"))
def test_faces_can_be_imported(name: str) -> None:
    assert importlib.import_module(f"cellingua.cli.{name}").__doc__
