"""Templates: how what is known of a cell becomes its text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from cellingua.core.errors import ConfigError
from cellingua.words.aspects import Reading
from cellingua.words.metadata import NAMES

# Template -> what it is. The first is LangCell's (specification, section 2.2).
TEMPLATES = {
    "langcell": "'cell type: b cell. a lymphocyte of ...; tissue: blood. ...; ', LangCell's form",
    "names": "the same without definitions: 'cell type: b cell. tissue: blood. '",
    "sentence": "'a b cell, from islet of langerhans, in the pancreas. a lymphocyte of ...', only the type is defined",
    "bare": "names alone: 'b cell, blood, normal'",
}
_SENTENCE = {
    "cell type": "{article} {name}",
    "tissue": "from {name}",
    "organ": "in the {name}",
    "development stage": "at the {name}",
    "disease": "with {name}",
    "sex": "from a {name} donor",
    "ethnicity": "of {name} ancestry",
    "assay": "measured by {name}",
}


def check_template(template: str) -> None:
    """Raise `ConfigError` for a template that doesn't exist."""
    if template not in TEMPLATES:
        raise ConfigError(f"There is no template {template!r}.", "one of: " + ", ".join(TEMPLATES), "another name")


@lru_cache(maxsize=4096)  # cells of many combinations share few phrases
def phrase(aspect: str, name: str, definition: str) -> str:
    """Return ``"<aspect>: <name>. <definition>; "`` in lower case, on one line; no definition, no ``"; "``."""
    definition = " ".join(definition.split())
    text = f"{aspect}: {' '.join(name.split())}. "
    if definition:
        text += f"{definition}; "
    return text.lower()


def compose(readings: Mapping[str, Reading], template: str) -> str:
    """Return the text of a cell, in lower case, on one line; ``""`` if no aspect says anything.

    Aspects stand in their fixed order, the cell type first; a tissue that is its organ is said once, as the organ.
    """
    said = {aspect: readings[aspect] for aspect in NAMES if aspect in readings and readings[aspect].name}
    if "tissue" in said and "organ" in said and said["tissue"].name.lower() == said["organ"].name.lower():
        del said["tissue"]
    if template == "langcell":
        return "".join(phrase(aspect, part.name, part.definition) for aspect, part in said.items())
    if template == "names":
        return "".join(phrase(aspect, part.name, "") for aspect, part in said.items())
    if template == "bare":
        text = ", ".join(part.name for part in said.values())
    else:
        text = _sentence(said)
    return " ".join(text.split()).lower()


def _sentence(said: Mapping[str, Reading]) -> str:
    """Return the sentence template, in whatever case."""
    parts = [] if "cell type" in said or not said else ["a cell"]
    for aspect, part in said.items():
        article = "an" if part.name[:1].lower() in "aeiou" else "a"
        healthy = aspect == "disease" and part.name == "normal"
        name = part.name.removesuffix(" ancestry") if aspect == "ethnicity" else part.name
        parts.append("without disease" if healthy else _SENTENCE[aspect].format(article=article, name=name))
    definition = said["cell type"].definition if "cell type" in said else ""
    return f"{', '.join(parts)}. {definition}" if parts else ""
