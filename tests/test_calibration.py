"""Temperatures and calibration errors, on models whose confidence is known to be wrong."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import seqlab
from seqlab.calibration import (
    Scored,
    calibration_of,
    diagram_lines,
    fit_temperature,
    is_calibrated,
    scored,
)
from seqlab.label_metrics import calibration_error
from seqlab.pipeline import Pipeline
from seqlab.tags import Grammar
from seqlab.vocabulary import Vocabulary

WORDS = Vocabulary(["a", "b"], padding=True, unknown=1)


def classifier(**options: Any) -> seqlab.Classifier:
    labels = Vocabulary(["neg", "pos"], scheme="label")
    return seqlab.Classifier(WORDS, labels, hidden_size=4, embedding_size=4, **options)


def tagger(scheme: str = "bioes", decoder: Any = "crf") -> seqlab.Tagger:
    names = ["O", "B-X", "I-X", "E-X", "S-X"] if scheme == "bioes" else ["N", "V", "A"]
    torch.manual_seed(2)
    tags = Vocabulary(names, scheme=scheme, written=scheme)
    return seqlab.Tagger(WORDS, tags, hidden_size=4, embedding_size=4, decoder=decoder)


def texts(heat: float, count: int = 4000) -> list[Scored]:
    """Texts whose labels are drawn from probabilities, and logits that exaggerate these."""
    torch.manual_seed(1)
    logits = torch.randn(count, 2) * 1.5
    target = torch.distributions.Categorical(logits=logits).sample()
    gold = [[("neg", "pos")[i]] for i in target.tolist()]
    return [Scored(logits * heat, target, torch.ones(count, 1, dtype=torch.bool), gold)]


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_of_an_exaggerating_classifier_is_found(heat: float) -> None:
    model, kept = classifier(), texts(heat)
    temperature = fit_temperature(model, kept)
    assert temperature == pytest.approx(heat, rel=0.1)
    model.cool(temperature)
    found = calibration_of(model, kept)
    assert found.error < 0.03
    if heat != 1.0:
        assert found.before > 2 * found.error
    assert sum(one["count"] for one in found.bins) == 4000


def sentences(model: seqlab.Tagger, heat: float) -> list[Scored]:
    """Sentences whose tags are drawn from the model's distribution, and hotter scores."""
    torch.manual_seed(3)
    kept = []
    for length in (2, 3, 4) * 60:
        emissions = torch.randn(1, length, len(model.target_vocab)) * 2
        target = drawn(model, emissions)
        mask = torch.ones(1, length, dtype=torch.bool)
        gold = [model.target_vocab.decode(target[0].tolist())]
        kept.append(Scored(emissions * heat, target, mask, gold))
    with torch.no_grad():
        for parameter in model.crf.parameters():
            parameter.mul_(heat)
    return kept


@torch.no_grad()
def drawn(model: seqlab.Tagger, emissions: torch.Tensor) -> torch.Tensor:
    """Draw the tags of a sentence, ``(1, time)``, from the probabilities of all that are legal."""
    ids = range(emissions.shape[2])
    paths = list(itertools.product(ids, repeat=emissions.shape[1]))
    if model.decoder != "softmax":
        grammar = Grammar.of(model.target_vocab.tokens, model.target_vocab.scheme)
        paths = [path for path in paths if grammar.allows(path)]
    tags = torch.tensor(paths)
    logs = model.crf(emissions.expand(len(paths), -1, -1), tags, reduction="none")
    return tags[torch.distributions.Categorical(logits=logs).sample()].unsqueeze(0)


@pytest.mark.parametrize("scheme", ["bioes", "none"])
@pytest.mark.parametrize("decoder", ["crf", "softmax", "constrained"])
def test_the_temperature_of_an_exaggerating_tagger_is_found(scheme: str, decoder: str) -> None:
    model = tagger(scheme, decoder)
    kept = sentences(model, 2.5)
    temperature = fit_temperature(model, kept)
    assert temperature == pytest.approx(2.5, rel=0.2)
    model.cool(temperature)
    found = calibration_of(model, kept)
    assert found.error < found.before
    assert found.error < 0.08


def test_no_answer_depends_on_the_temperature() -> None:
    model = tagger().eval()
    pipeline = Pipeline(model)
    words = [["a", "b", "a", "zz"], ["b"]]
    one = pipeline(words)
    model.cool(4.0)
    other = pipeline(words)
    assert [x.tags for x in one] == [x.tags for x in other]
    sure = [[span.confidence for span in x.spans] for x in (*one, *other)]
    assert sure[:2] != sure[2:] or not any(sure)
    assert model.config["temperature"] == 4.0


def test_a_classifier_says_its_label_less_surely() -> None:
    model = classifier().eval()
    pipeline = Pipeline(model)
    (before,) = pipeline([["a", "b"]])
    model.cool(5.0)
    (after,) = pipeline([["a", "b"]])
    assert before.labels == after.labels
    assert before.probabilities is not None
    assert after.probabilities is not None
    assert 0.5 < max(after.probabilities.values()) < max(before.probabilities.values())


def test_without_anything_known_nothing_changes() -> None:
    assert fit_temperature(classifier(), []) == 1.0


def test_what_can_be_mended() -> None:
    several = seqlab.Classifier(WORDS, Vocabulary(["a", "b"], scheme="labels"))
    assert is_calibrated(classifier())
    assert is_calibrated(tagger())
    assert not is_calibrated(several)
    assert not is_calibrated(object())


def test_a_split_that_is_too_large_is_kept_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from seqlab.batch import FormTable

    model = classifier()
    table = FormTable(WORDS)
    batches = [table.batch(table.index(["a", "b"]), [2]) for _ in range(5)]
    for batch in batches:
        batch.gold = [["pos"]]
    kept, whole = scored(model, batches)
    assert (len(kept), whole) == (5, True)
    monkeypatch.setattr("seqlab.calibration._HELD", 5)
    kept, whole = scored(model, batches)
    assert (len(kept), whole) == (3, False)


def test_the_diagram_shows_what_there_is() -> None:
    bins = calibration_of(classifier(), texts(3.0)).bins
    lines = diagram_lines(bins)
    assert len(lines) == 1 + sum(one["count"] > 0 for one in bins)
    assert lines[-1].startswith("0.9 to 1.0")
    assert "█" in lines[-1]


def test_errors_are_those_of_the_metric() -> None:
    kept = texts(3.0, 200)
    sure, chosen = kept[0].scores.softmax(-1).max(-1)
    right = chosen == kept[0].target
    found = calibration_of(classifier(), kept)
    assert found.error == found.before == pytest.approx(calibration_error(sure, right))
