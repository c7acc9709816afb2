"""Sentences that a model was asked before it was packed, and what it answered.

Whoever installs a model can ask it the same again: files that are whole may still be computed
otherwise by another version of a package, and then this says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from seqlab.errors import BundleError
from seqlab.labelled import Labelled
from seqlab.tagged import Tagged
from seqlab.translated import Translated

TOLERANCE = 1e-3  # of probabilities, and of the scores of translations
_DIGITS = 6
_TEXTS = {
    "en": (
        "Time flies like an arrow.",
        "Ada Lovelace was born in London in 1815.",
        "Where did I leave my keys this time?",
        "The soup was cold, the waiter rude, and still we laughed all evening.",
        "Could you book a table for two at seven?",
        "A wonderful film, if you leave before the end.",
        "She had the old bridge painted blue.",
        "@maria thx!! see u 2morrow \U0001f600 #paris",
        "Rain.",
        "Nobody at Glimmerwick & Sons had ever seen a zyxomat.",
    ),
    "fr": (
        "Le temps passe vite quand on est bien.",
        "Ada Lovelace est née à Londres en 1815.",
        "Où ai-je encore laissé mes clés ?",
        "La soupe était froide, mais nous avons ri toute la soirée.",
        "Pouvez-vous réserver une table pour deux à sept heures ?",
        "Elle a fait peindre le vieux pont en bleu.",
        "Qu'est-ce qu'il a dit aujourd'hui ?",
        "merci \U0001f600 à demain #paris",
        "Pluie.",
        "Personne chez Glimmerwick & Fils n'avait jamais vu de zyxomate.",
    ),
}


def probe_texts(language: str) -> tuple[str, ...]:
    """Return texts to ask a model: in its language if there are any, otherwise in English."""
    return _TEXTS.get(language, _TEXTS["en"])


def answers(pipeline: Any, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Ask a pipeline, and write down what it says.

    Args:
        pipeline: of :func:`seqlab.load`.
        texts: what is asked.

    Returns:
        for each ``text``, what was ``said`` (tags, labels or the translation) and how ``sure`` it
        was: the probabilities, or the score of the translation.
    """
    return [
        {"text": text, **_answer(found)}
        for text, found in zip(texts, pipeline(list(texts)), strict=True)
    ]


def _answer(found: Tagged | Labelled | Translated) -> dict[str, Any]:
    if isinstance(found, Translated):
        said, sure = [found.translation], [found.score]
    elif isinstance(found, Labelled):
        said, sure = list(found.labels), list((found.probabilities or {}).values())
        names = list(found.probabilities or {})
        sure = [p for _, p in sorted(zip(names, sure, strict=True))]  # by name, not by chance
    else:
        said, sure = list(found.tags), list(found.confidences or [])
    return {"said": said, "sure": [round(float(p), _DIGITS) for p in sure]}


def differences(expected: object, found: Sequence[dict[str, Any]]) -> tuple[list[str], float]:
    """Compare answers with those that were written down.

    Args:
        expected: as :func:`answers` returned it, read from a file.
        found: of the same texts, now.

    Returns:
        a sentence for each text that is answered otherwise, and the largest difference of a
        probability or score among all that are comparable.

    Raises:
        BundleError: what was written down is not what :func:`answers` writes.
    """
    if not isinstance(expected, list) or len(expected) != len(found):
        raise BundleError("the probe sentences are damaged: get the model again.")
    wrong, largest = [], 0.0
    for before, now in zip(expected, found, strict=True):
        if not isinstance(before, dict) or before.get("text") != now["text"]:
            raise BundleError("the probe sentences are damaged: get the model again.")
        if before.get("said") != now["said"]:
            wrong.append(f"{now['text']!r}: was {before.get('said')}, is {now['said']}.")
            continue
        sure = before.get("sure")
        if not isinstance(sure, list) or len(sure) != len(now["sure"]):
            wrong.append(f"{now['text']!r}: was as sure as {sure}, is {now['sure']}.")
            continue
        apart = max((abs(a - b) for a, b in zip(sure, now["sure"], strict=True)), default=0.0)
        largest = max(largest, apart)
        if not apart <= TOLERANCE or not math.isfinite(apart):
            wrong.append(f"{now['text']!r}: is {apart:.4f} more or less sure than it was.")
    return wrong, largest
