"""Small models with random weights: what is shown of them is checked, not how good they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.models.translator import Translator
from seqlab.subwords import SubwordVocabulary, train_tokenizer
from seqlab.vocabulary import Vocabulary

SMALL: dict[str, Any] = {
    "hidden_size": 5,
    "embedding_size": 4,
    "character_embedding_size": 3,
    "character_size": 3,
    "casing_size": 2,
}
TAGS = ["O", *(f"{prefix}-{label}" for label in ("LOC", "PER") for prefix in "BIES")]
WORDS = ["Ada", "saw", "Paris", "."]


def words(**features: Vocabulary) -> Vocabulary:
    letters = Vocabulary("Adaspri", padding=True, unknown=1)
    return Vocabulary(WORDS, padding=True, unknown=1, characters=letters, features=features)


def shaken(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.7)
    return model.eval()


@pytest.fixture(scope="session")
def make_tagger() -> Callable[..., Tagger]:
    def make(features: dict[str, Vocabulary] | None = None, **options: Any) -> Tagger:
        target = options.pop("target", Vocabulary(TAGS, scheme="bioes", written="iob2"))
        made: Tagger = shaken(Tagger(words(**(features or {})), target, **{**SMALL, **options}))
        return made

    return make


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., Classifier]:
    def make(**options: Any) -> Classifier:
        target = options.pop("target", Vocabulary(["bad", "good"], scheme="label"))
        made: Classifier = shaken(Classifier(words(), target, **{**SMALL, **options}))
        return made

    return make


@pytest.fixture(scope="session")
def tagger(make_tagger: Callable[..., Tagger]) -> Tagger:
    return make_tagger()


SOURCES = ["Ada saw Paris.", "the dog, the cat", "日本 saw Ada 日"]
TARGETS = ["Ada vit Paris.", "le chien, le chat", "Ada vit 日本 naïve"]


def pieces(texts: list[str], language: str) -> SubwordVocabulary:
    return SubwordVocabulary(train_tokenizer(iter(texts), "words", 100), language=language)


@pytest.fixture(scope="session")
def make_translator() -> Callable[..., Translator]:
    def make(**options: Any) -> Translator:
        small = {"hidden_size": 5, "embedding_size": 4, "decoder_size": 6, "max_ratio": 1.0}
        source = options.pop("source", pieces(SOURCES, "en"))
        target = options.pop("target", pieces(TARGETS, "fr"))
        made = shaken(Translator(source, target, **{**small, "max_extra": 3, **options}))
        assert isinstance(made, Translator)
        return made

    return make


@pytest.fixture(scope="session")
def translator(make_translator: Callable[..., Translator]) -> Translator:
    return make_translator()
