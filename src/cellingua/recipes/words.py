"""The words of the recipe: every way to write each term, read once; later the text tower learns to read them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cellingua.core.files import atomic_path
from cellingua.core.progress import Progress
from cellingua.models.langcell import LangCellModule
from cellingua.nn.language import TextTower
from cellingua.objectives.contrast import cell_text_contrast
from cellingua.training.loop import TrainConfig, train
from cellingua.training.optimise import OptimiseConfig
from cellingua.words.describing import describe_label, describe_term
from cellingua.words.ontology import Ontology, load_ontology
from cellingua.words.wordpiece import WordPiece

SYNONYMS = 4
PIECES = 96
TEXTS = 40  # of a step of `adapt_words`
_GROUP = 64


def writings(ontology: Ontology, term: str) -> list[str]:
    """Return the ways to write a term: with its definition, its name as a prompt and bare, some synonyms."""
    name = ontology.name(term)
    ways = [describe_term(term, ontology), describe_label(name), name.lower()]
    ways += [describe_label(synonym) for synonym in ontology.synonyms(term)[:SYNONYMS]]
    return list(dict.fromkeys(ways))


@dataclass(frozen=True)
class WordBank:
    """Texts of all terms and what the text tower made of them.

    Attributes
    ----------
    term_ids
        Terms.
    texts
        Texts, those of a term side by side.
    row
        int64 (texts,): the term of each text, as a place in `term_ids`.
    features
        float32 (texts, width): pooled state of the text tower.
    source
        Hash of the texts and of the tower that read them.
    """

    term_ids: list[str]
    texts: list[str]
    row: NDArray[np.int64]
    features: Tensor
    source: str

    def of(self, terms: list[str]) -> Features:
        """Return the features of some terms, to sample from."""
        start = np.searchsorted(self.row, np.arange(len(self.term_ids) + 1))
        place = {term: i for i, term in enumerate(self.term_ids)}
        rows = [np.arange(start[place[term]], start[place[term] + 1]) for term in terms]
        return Features(self.features, rows, self.texts)

    @torch.inference_mode()
    def term_vectors(self, module: LangCellModule) -> NDArray[np.float32]:
        """Return one vector a term, float32 (terms, joint), unit length: the mean over the ways to write it."""
        vectors = nn.functional.normalize(module.text_projection(self.features), dim=-1)
        sums = vectors.new_zeros((len(self.term_ids), vectors.shape[1]))
        sums.index_add_(0, torch.from_numpy(self.row), vectors)
        return np.asarray(nn.functional.normalize(sums, dim=-1).numpy())

    def as_taught(self, vectors: NDArray[np.float32], narrower: Mapping[str, str]) -> NDArray[np.float32]:
        """Return `vectors` (terms, joint) with that of each term of `narrower` replaced by the one it is taught as.

        Its own is a target too seldom to lie where its cells lie.
        """
        row_of = {term: row for row, term in enumerate(self.term_ids)}
        rows = np.arange(len(vectors))
        for term, taught in narrower.items():
            rows[row_of[term]] = row_of[taught]
        return vectors[rows]


@dataclass(frozen=True)
class Features:
    """Features of the ways to write some terms."""

    features: Tensor
    rows: list[NDArray[np.int64]]
    texts: list[str]

    def written(self, step: int, terms: NDArray[np.int64]) -> list[str]:
        """Return texts of some of the terms, to be read beside cells.

        Every third step they are the full ones, with definitions; else names and synonyms. Texts of a step are then of
        like length, which is cheap, and none gives itself away by its form.
        """
        return [self.texts[row] for row in self.chosen(step, terms).tolist()]

    def chosen(self, step: int, terms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place in `texts` of each of what `written` returns."""
        rng = np.random.default_rng([6, step])
        ways = [self.rows[term][:1] if step % 3 == 0 else self.rows[term][1:] for term in terms.tolist()]
        return np.array([rng.choice(rows) for rows in ways], np.int64)

    def sample(self, step: int) -> Tensor:
        """Return one way to write each term, float32 (terms, width); another draw at each step."""
        rng = np.random.default_rng([3, step])
        return self.features[[int(rows[rng.integers(len(rows))]) for rows in self.rows]]


@torch.inference_mode()
def embed_words(tower: TextTower, pieces: WordPiece, cache: Path, progress: Progress) -> WordBank:
    """Read all terms with the text tower; `cache` keeps the result for a resumed run.

    Terms of other species are read too: a user may name one. A cache of other texts, of another tower or of a run
    that was killed as it wrote is read anew.
    """
    ontology = load_ontology("CL")
    texts: list[str] = []
    row: list[int] = []
    for place, term in enumerate(ontology.ids):
        ways = writings(ontology, term)
        texts += ways
        row += [place] * len(ways)
    source = _source(tower, pieces, texts)
    features = _cached(cache, source)
    if features is None:
        features = torch.empty((len(texts), tower.width))
        order = np.argsort([len(text) for text in texts], kind="stable")
        progress.step("Reading the words", len(texts))
        for start in range(0, len(order), _GROUP):
            rows = order[start : start + _GROUP]
            ids, mask = pieces.encode([texts[i] for i in rows], max_length=PIECES)
            features[rows] = tower(torch.from_numpy(ids), torch.from_numpy(mask)).pooled
            progress.advance(len(rows))
        with atomic_path(cache) as partial:
            save_file({"features": features}, partial, metadata={"source": source})
    return WordBank(list(ontology.ids), texts, np.array(row), features.clone(), source)


def _source(tower: TextTower, pieces: WordPiece, texts: list[str]) -> str:
    """Return a hash of all that the features follow from."""
    digest = hashlib.sha256("\n".join([pieces.tokenizer.to_str(), *texts]).encode())
    for name, weights in tower.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.numpy().tobytes())
    return digest.hexdigest()


def _cached(cache: Path, source: str) -> Tensor | None:
    """Return the features that are kept, or None where they are of another source or can't be read."""
    try:
        with safe_open(cache, framework="pt") as held:
            return held.get_tensor("features") if (held.metadata() or {}).get("source") == source else None
    except (OSError, SafetensorError):
        return None


def adapt_words(
    module: LangCellModule,
    pieces: WordPiece,
    words: WordBank,
    vectors: NDArray[np.float32],
    steps: int,
    progress: Progress,
    folder: Path | None = None,
) -> dict[str, float]:
    """Teach the text tower's last two layers and its projection that all ways to write a term mean that term.

    The terms' vectors, which cells were trained against, stay; texts are pulled to their own and pushed from the
    others. Afterwards a synonym that the tower read as something else lies where the term lies.

    Parameters
    ----------
    vectors
        float32 (terms, joint), unit length: where each term lies.
    folder
        Where checkpoints go, so that a stopped run resumes; those of other words or vectors are refused.

    Returns
    -------
    dict
        Share of 1,000 texts whose nearest term is their own, before and after.
    """
    targets = torch.from_numpy(vectors)
    probe = np.random.default_rng(4).choice(len(words.texts), min(1000, len(words.texts)), replace=False)
    closeness = {"before": _nearest(module, pieces, words, targets, probe)}
    if steps == 0:
        return closeness
    module.requires_grad_(False)
    module.text_projection.requires_grad_(True)
    for layer in list(module.text_tower.layers)[-2:]:
        layer.requires_grad_(True)

    def losses_of(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([5, step])
        chosen = rng.choice(len(words.texts), TEXTS, replace=False)
        ids, mask = pieces.encode([words.texts[i] for i in chosen], max_length=64)
        texts = module.texts(torch.from_numpy(ids), torch.from_numpy(mask))
        positive = torch.zeros((len(chosen), len(targets)), dtype=torch.bool)
        positive[torch.arange(len(chosen)), torch.from_numpy(words.row[chosen])] = True
        pull = 1 - (texts * targets[words.row[chosen]]).sum(dim=1).mean()
        push = cell_text_contrast(texts, targets, positive, temperature=0.05, symmetric=False)
        return {"pull": 4 * pull, "push": push}

    config = TrainConfig(steps, checkpoint_every=50, optimise=OptimiseConfig(learning_rate=2e-4))
    # The checkpoint holds the cell tower too: it must not come back into a model that was trained anew.
    facts = {"words": words.source, "vectors": hashlib.sha256(vectors.tobytes()).hexdigest()}
    train(module, losses_of, config, folder=folder, run=facts, progress=progress)
    module.requires_grad_(False)
    closeness["after"] = _nearest(module, pieces, words, targets, probe)
    return closeness


@torch.inference_mode()
def _nearest(
    module: LangCellModule, pieces: WordPiece, words: WordBank, targets: Tensor, probe: NDArray[np.int64]
) -> float:
    right = 0
    for start in range(0, len(probe), _GROUP):
        rows = probe[start : start + _GROUP]
        ids, mask = pieces.encode([words.texts[i] for i in rows], max_length=PIECES)
        found = (module.texts(torch.from_numpy(ids), torch.from_numpy(mask)) @ targets.T).argmax(dim=1)
        right += int((found.numpy() == words.row[rows]).sum())
    return round(right / len(probe), 4)
