"""LangCell's multimodal few-shot loss: the class texts are the classes (specification, section 5.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def few_shot_losses(
    similarity: Tensor, match_probability: Tensor, labels: Tensor, weight: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the two losses that the released code adds.

    Parameters
    ----------
    similarity
        float (B, K): cell . text / temperature, of each cell with the text of each class.
    match_probability
        float (B, K): the probability of a match, from the match classifier beside each cell.
    labels
        int64 (B,): the class of each cell.
    weight
        float (K,): of each class; None, as released, lets every cell count the same.

    Returns
    -------
    dict
        ``similarity``: cross-entropy of the similarities. ``match``: cross-entropy that takes the *probabilities* for
        logits, so that a second softmax runs over numbers between 0 and 1. That is what the released code does: the
        term never falls below log(1 + (K - 1) / e), and its gradient fades as a probability nears 0 or 1.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if similarity.shape != match_probability.shape or labels.shape != similarity.shape[:1]:
        raise ValueError(
            f"similarities {tuple(similarity.shape)}, probabilities {tuple(match_probability.shape)}, "
            f"labels {tuple(labels.shape)}"
        )
    return {
        "similarity": functional.cross_entropy(similarity, labels, weight=weight),
        "match": functional.cross_entropy(match_probability, labels, weight=weight),
    }
