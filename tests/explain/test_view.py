from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.batch import Batch, FormTable
from seqlab.errors import UsageError
from seqlab.explain import view as module
from seqlab.explain.options import Options
from seqlab.explain.view import WORDS, View, traces_of, view_of
from seqlab.models.tagger import Tagger

Make = Callable[..., Tagger]


def batch_of(model: Tagger, count: int) -> Batch:
    table = FormTable(model.source_vocab)
    words = ["Ada", "saw", "Paris", "and", "Bo", "."]
    return table.batch(table.index([words[i * i % 6] for i in range(count)]), [count])


def seen(model: Tagger, count: int, **asked: Any) -> View:
    return view_of(model, model.embed(batch_of(model, count)), Options("m", **asked))


@torch.no_grad()
def test_everything_of_a_short_text_is_seen(make_tagger: Make) -> None:
    view = seen(make_tagger(num_layers=2), 3)
    assert view.shown == range(3)
    assert view.ways == {(n, way) for n in (1, 2) for way in ("forward", "backward")}
    assert view.note is None


@torch.no_grad()
def test_a_layer_and_a_direction_are_picked(make_tagger: Make) -> None:
    view = seen(make_tagger(num_layers=2), 3, layer=2, direction="backward")
    assert view.ways == {(2, "backward")}


@torch.no_grad()
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({}, range(WORDS)),
        ({"first": 101}, range(100, 300)),
        ({"first": 401}, range(400, 500)),
        ({"last": 3}, range(3)),
        ({"first": 7, "last": 450}, range(6, 450)),
        ({"first": 500, "last": 500}, range(499, 500)),
    ],
)
def test_words_are_counted_from_1(tagger: Tagger, asked: dict[str, int], shown: range) -> None:
    assert seen(tagger, 500, **asked).shown == shown


@torch.no_grad()
def test_what_nobody_left_out_is_told(tagger: Tagger) -> None:
    assert seen(tagger, 500).note == (
        f"words 1 to 200 of 500 are shown: choose others with --from and --to, up to "
        f"{module.MOST_VALUES // 60:,} at once."
    )
    assert seen(tagger, 500, first=401).note is None
    assert seen(tagger, 500, last=10).note is None


@torch.no_grad()
def test_large_models_show_fewer_words(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 600)  # of 2 directions, 6 series, 5 units
    view = seen(tagger, 50)
    assert view.most == 10
    assert view.shown == range(10)
    assert seen(tagger, 50, direction="forward").most == 20
    assert seen(tagger, 50, unit=1).most == 50
    assert seen(tagger, 50, first=3, last=12).shown == range(2, 12)
    with pytest.raises(UsageError, match="--from 3 --to 13: .* at most 10 words, or one --layer"):
        seen(tagger, 50, first=3, last=13)


@torch.no_grad()
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layer": 2}, "--layer 2: the model has 1 layer; choose from 1 to 1."),
        ({"unit": 6}, "--unit 6: the model has 5 units; choose from 1 to 5."),
        ({"direction": "up"}, "--direction up: the model reads forward and backward; choose"),
        ({"first": 4}, "--from 4: the text has 3 words; choose from 1 to 3."),
        ({"last": 4}, "--to 4: the text has 3 words; choose from 1 to 3."),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    tagger: Tagger, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        seen(tagger, 3, **asked)


@torch.no_grad()
def test_a_direction_that_the_model_lacks_is_refused(make_tagger: Make) -> None:
    model = make_tagger(bidirectional=False)
    assert seen(model, 3).ways == {(1, "forward")}
    with pytest.raises(UsageError, match="the model reads forward; choose forward."):
        seen(model, 3, direction="backward")


def both_ways(model: Tagger, count: int, **asked: Any) -> tuple[Tensor, Tensor]:
    """The hidden states that are seen, and those that the model works with, ``(word, unit)``."""
    batch = batch_of(model, count)
    x = model.embed(batch)
    view = view_of(model, x, Options("m", **asked))
    ahead, back = traces_of(model, x, view)
    found = torch.cat([ahead.series["hidden"], back.series["hidden"]], -1)
    return found, model.encode(batch)[0, view.shown.start : view.shown.stop]


@torch.no_grad()
@pytest.mark.parametrize(("first", "last"), [(1, 700), (130, 131), (199, 402), (700, 700)])
def test_long_texts_are_traced_in_the_windows_of_the_model(
    make_tagger: Make, first: int, last: int
) -> None:
    # What a window cannot see must matter, else this shows nothing: these cells hardly forget.
    model = make_tagger(window=200, zoneout=0.99)
    found, expected = both_ways(model, 700, first=first, last=last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    model.window = 10_000
    whole, _ = both_ways(model, 700, first=first, last=last)
    assert float((found - whole).abs().max()) > 1e-2


@torch.no_grad()
def test_a_text_of_one_window_is_read_at_once(make_tagger: Make) -> None:
    model = make_tagger(window=200, zoneout=0.99)
    found, expected = both_ways(model, 200)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_unit_is_that_column_of_all(tagger: Tagger) -> None:
    x = tagger.embed(batch_of(tagger, 4))
    whole = traces_of(tagger, x, view_of(tagger, x, Options("m")))
    alone = traces_of(tagger, x, view_of(tagger, x, Options("m", unit=3)))
    for one, many in zip(alone, whole, strict=True):
        for name, values in many.series.items():
            assert torch.equal(one.series[name], values[:, 2:3])


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@torch.no_grad()
def test_a_unit_beyond_the_projection_has_gates_only(make_tagger: Make) -> None:
    model = make_tagger(proj_size=2, bidirectional=False)
    x = model.embed(batch_of(model, 4))
    (found,) = traces_of(model, x, view_of(model, x, Options("m", unit=4)))
    assert list(found.series) == ["input", "forget", "candidate", "output", "cell"]
