"""seqlab: small, fast, trustworthy LSTM sequence models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from seqlab.cascade import Cascade
    from seqlab.data.classification import ClassificationData
    from seqlab.data.tagging import TaggingData
    from seqlab.data.translation import TranslationData
    from seqlab.metrics import SpanF1
    from seqlab.models.classifier import Classifier
    from seqlab.models.tagger import Tagger
    from seqlab.models.translator import Translator
    from seqlab.nn.crf import CRF
    from seqlab.pipeline import Pipeline
    from seqlab.translation_pipeline import TranslationPipeline
    from seqlab.vocabulary import Vocabulary
    from seqlab.zoo import load

__all__ = [
    "CRF",
    "Cascade",
    "ClassificationData",
    "Classifier",
    "Pipeline",
    "SpanF1",
    "Tagger",
    "TaggingData",
    "TranslationData",
    "TranslationPipeline",
    "Translator",
    "Vocabulary",
    "load",
]

_HOMES = {
    "CRF": "seqlab.nn.crf",
    "Cascade": "seqlab.cascade",
    "ClassificationData": "seqlab.data.classification",
    "Classifier": "seqlab.models.classifier",
    "Pipeline": "seqlab.pipeline",
    "SpanF1": "seqlab.metrics",
    "Tagger": "seqlab.models.tagger",
    "TaggingData": "seqlab.data.tagging",
    "TranslationData": "seqlab.data.translation",
    "TranslationPipeline": "seqlab.translation_pipeline",
    "Translator": "seqlab.models.translator",
    "Vocabulary": "seqlab.vocabulary",
    "load": "seqlab.zoo",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import seqlab`` brings no torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'seqlab' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
