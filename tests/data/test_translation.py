from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqlab.data import encoding
from seqlab.data.translation import TranslationData
from seqlab.errors import DataError, RecipeError
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary
from seqlab.vocabulary import Vocabulary

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven"]
ZAHLEN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben"]
Pair = tuple[str, str]


def pairs(count: int, seed: int = 0, longest: int = 9) -> list[Pair]:
    """Random numbers in two languages; in German no word stands for some of them."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        numbers = random.integers(0, 7, random.integers(1, longest + 1))
        german = [ZAHLEN[n] for n in numbers if n < 5] or ["nichts"]
        found.append((" ".join(german), " ".join(NUMBERS[n] for n in numbers)))
    return found


def corpus(folder: Path, **splits: list[Pair]) -> str:
    """Parallel files, German and English."""
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        for at, side in enumerate(("de", "en")):
            text = "".join(f"{row[at]}\n" for row in rows)
            (folder / f"{name}.{side}").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return corpus(
        tmp_path / "corpus", train=pairs(60), val=pairs(12, seed=1), test=pairs(9, seed=2)
    )


def german(path: str | None, **options: Any) -> TranslationData:
    given: dict[str, Any] = {
        "source_language": "de",
        "target_language": "en",
        "tokenizer": "words",
        "vocabulary_size": 40,
    }
    return TranslationData(path, **{**given, **options})


def spelt(data: TranslationData, batch: PairBatch) -> list[Pair]:
    """What the ids of a batch say; every text ends with the end token and then with padding."""
    assert batch.target is not None
    assert batch.target_lengths is not None
    sides = []
    for ids, lengths, vocab in (
        (batch.source, batch.source_lengths, data.source_vocab),
        (batch.target, batch.target_lengths, data.target_vocab),
    ):
        assert ids.shape[1] == lengths.max()
        for row, length in zip(ids.tolist(), lengths.tolist(), strict=True):
            assert row[length - 1] == vocab.END
            assert vocab.END not in row[: length - 1]
            assert set(row[length:]) <= {vocab.PADDING}
        sides.append(vocab.decode(ids.tolist()))
    return list(zip(*sides, strict=True))


def test_training_batches_hold_every_pair_once(folder: str) -> None:
    data = german(folder, batch_size=7)
    data.setup("fit")
    batches = list(data.train_dataloader())
    found = [pair for batch in batches for pair in spelt(data, batch)]
    assert sorted(found) == sorted(pairs(60))
    assert {len(batch) for batch in batches} <= set(range(1, 8))
    assert all(batch.gold is None and batch.texts is None for batch in batches)


@pytest.mark.parametrize(("split", "seed", "count"), [("validation", 1, 12), ("test", 2, 9)])
def test_scored_batches_bring_the_texts(split: str, seed: int, count: int, folder: str) -> None:
    data = german(folder, lowercase=True, eval_tokens_per_batch=30)
    loader = data.val_dataloader() if split == "validation" else data.test_dataloader()
    found: list[Pair] = []
    for batch in loader:
        assert batch.gold is not None
        assert batch.texts is not None
        found += zip(batch.texts, batch.gold, strict=True)
        assert spelt(data, batch) == list(zip(batch.texts, batch.gold, strict=True))
    assert sorted(found) == sorted(pairs(count, seed))


def test_texts_and_gold_are_as_they_were_written(tmp_path: Path) -> None:
    path = corpus(tmp_path / "c", train=[("Ja  da\u2028!", "Cafe\u0301")], test=[("Ω", "New")])
    data = german(path, lowercase=True, hold_out=0.0)
    train = data.dataset("train", scored=True)[np.array([0])]
    assert (train.texts, train.gold) == (["Ja da !"], ["Café"])
    assert spelt(data, train) == [("ja da !", "café")]
    test = data.dataset("test", scored=True)[np.array([0])]
    assert (test.texts, test.gold) == (["Ω"], ["New"])
    assert test.source.tolist() == [[SubwordVocabulary.UNKNOWN, SubwordVocabulary.END]]


def test_a_budget_counts_the_longer_side_with_its_padding(folder: str) -> None:
    data = german(folder, batch_size=50, tokens_per_batch=40, eval_tokens_per_batch=25)
    for loader, budget in ((data.train_dataloader(), 40), (data.val_dataloader(), 25)):
        for batch in loader:
            longer = max(batch.source.shape[1], batch.target.shape[1])
            assert len(batch) == 1 or len(batch) * longer <= budget


def test_a_batch_is_of_like_targets_and_then_of_like_sources(folder: str) -> None:
    data = german(folder, batch_size=4)
    lengths = [
        (target, source)
        for batch in data.val_dataloader()
        for target, source in zip(
            batch.target_lengths.tolist(), batch.source_lengths.tolist(), strict=True
        )
    ]
    assert lengths == sorted(lengths, reverse=True)
    for batch in data.train_dataloader():
        found = list(zip(batch.target_lengths.tolist(), batch.source_lengths.tolist(), strict=True))
        assert found == sorted(found)


def test_the_order_is_that_of_seed_and_epoch(folder: str) -> None:
    def order(seed: int, epoch: int, workers: int = 0) -> list[list[Pair]]:
        data = german(folder, batch_size=5, seed=seed, num_workers=workers)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return [spelt(data, batch) for batch in loader]

    assert order(1, 0) == order(1, 0)
    assert order(1, 3) == order(1, 3) != order(1, 0)
    assert order(2, 0) != order(1, 0)


def test_the_speed_of_a_run_counts_the_targets(folder: str) -> None:
    data = german(folder)
    loader = data.test_dataloader()
    tokens = sum(int(batch.target_lengths.sum()) for batch in loader)
    dataset: Any = loader.dataset
    assert dataset.encoded.offsets[-1] == tokens


# Vocabularies


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "words"])
def test_every_tokenizer_fits_its_corpus(kind: str, folder: str) -> None:
    data = german(folder, tokenizer=kind, vocabulary_size=300)
    data.setup("fit")
    batch = data.dataset("train", scored=True)[np.arange(60)]
    assert spelt(data, batch) == pairs(60)
    assert (batch.source != SubwordVocabulary.UNKNOWN).all()


def test_a_joint_tokenizer_is_one_for_both_sides(folder: str) -> None:
    data = german(folder)
    assert data.source_vocab == data.target_vocab
    assert (data.source_vocab.language, data.target_vocab.language) == ("de", "en")
    assert len(data.source_vocab) == 4 + 5 + 1 + 7
    apart = german(folder, joint=False)
    assert (len(apart.source_vocab), len(apart.target_vocab)) == (4 + 5 + 1, 4 + 7)
    batch = apart.dataset("train", scored=False)[np.arange(60)]
    assert spelt(apart, batch) == pairs(60)


def test_the_second_run_reads_what_the_first_has_made(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = german(folder)
    wanted = [batch.source.tolist() for batch in first.train_dataloader()]
    monkeypatch.setattr(encoding, "train_tokenizer", None)
    monkeypatch.setattr(SubwordVocabulary, "encode", None)
    again = german(folder)
    assert again.source_vocab == first.source_vocab
    assert [batch.source.tolist() for batch in again.train_dataloader()] == wanted


def test_texts_that_support_fewer_pieces_are_told(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = german(folder, tokenizer="bpe", vocabulary_size=1000)
    data.setup("fit")
    size = len(data.source_vocab)
    assert 260 < size < 400
    assert data.notes == [
        f"the bpe tokenizer has {size} pieces, not the 1,000 of data.vocabulary_size: the training "
        f"texts support no more; write {size} or less, or give more text."
    ]
    assert capsys.readouterr().err == f"seqlab: {data.notes[0]}\n"
    apart = german(folder, joint=False, vocabulary_size=10)
    apart.setup("fit")
    assert apart.notes == []
    apart = german(folder, joint=False, vocabulary_size=11)
    apart.setup("fit")
    assert [note.split(" has")[0] for note in apart.notes] == ["the words tokenizer of the source"]


def test_a_vocabulary_that_is_too_small_is_refused(folder: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.vocabulary_size is 200: too small for the 256"):
        german(folder, tokenizer="bpe", vocabulary_size=200).setup("fit")
    with pytest.raises(RecipeError, match=r"is 10: too small for the characters .* need \d\d: rai"):
        german(folder, tokenizer="wordpiece", vocabulary_size=10).setup("fit")


# Length


def test_training_pairs_that_are_too_long_are_left_out_with_a_note(tmp_path: Path) -> None:
    long = ("eins " * 5000, "one " * 3)
    rows = [("eins", "one"), long, ("zwei", "two two"), ("drei", "three three three")]
    path = corpus(tmp_path / "c", train=rows, val=[long], test=[long])
    data = german(path, max_length=2)
    data.setup("fit")
    found = [pair for batch in data.train_dataloader() for pair in spelt(data, batch)]
    assert sorted(found) == [("eins", "one"), ("zwei", "two two")]
    assert data.notes[-1] == (
        f"2 training pairs of more than 2 pieces on a side were left out (the first at "
        f"{path}/train.de:2); raise data.max_length to learn from them."
    )
    assert len(data.dataset("train", scored=True).encoded.lengths) == 4
    (batch,) = data.val_dataloader()
    assert batch.source.shape == (1, 5001)
    assert spelt(data, batch) == [(long[0].strip(), long[1].strip())]
    whole = german(path, max_length=5000)
    assert sum(len(batch) for batch in whole.train_dataloader()) == 4
    assert [note for note in whole.notes if "left out" in note] == []


def test_training_pairs_that_are_all_too_long_are_an_error(folder: str) -> None:
    data = german(folder, tokenizer="bpe", vocabulary_size=260, max_length=2)
    with pytest.raises(DataError) as caught:
        data.train_dataloader()
    assert str(caught.value) == (
        f"{folder}/train.de:1: neither this nor any other training pair has at most 2 pieces on "
        "each side: raise data.max_length or data.vocabulary_size."
    )


# Splits


def test_missing_splits_are_held_out(tmp_path: Path) -> None:
    path = corpus(tmp_path / "c", train=pairs(50))
    data = german(path, hold_out=0.2, max_length=1)
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 10,
    }
    assert data.notes == [
        f"{path} has no validation or test split: 10 of its 50 training pairs, drawn once and for "
        "all, stand in for each."
    ]
    found = [pair for batch in data.test_dataloader() for pair in spelt(data, batch)]
    assert set(found) <= set(pairs(50))
    data.dataset("train", scored=False)
    row = next(i for i, pair in enumerate(data.splits["train"]["target"]) if " " in pair[0])
    line = data.splits["train"][row]["lines"][0]
    assert f"train.de:{line})" in data.notes[-1]
    alone = german(None, train=f"{path}/train", hold_out=0.0)
    assert [len(rows) for rows in alone.splits.values()] == [50, 50, 50]


def test_a_split_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = corpus(tmp_path / "c", test=pairs(5), val=pairs(5))
    data = german(path)
    for ask in (lambda: data.setup("fit"), lambda: data.source_vocab):
        with pytest.raises(DataError) as caught:
            ask()
        assert str(caught.value) == (
            f"{path} has no training split (only validation, test): name a file train.*, or give "
            "it as data.train."
        )
    data = german(corpus(tmp_path / "d", train=pairs(5), val=pairs(5)))
    with pytest.raises(DataError, match=r"d has no test split \(only train, validation\): give"):
        data.test_dataloader()


def test_one_table_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("de\ten\n" + "".join(f"{a}\t{b}\n" for a, b in pairs(30)), encoding="utf-8")
    data = TranslationData(str(file), tokenizer="words", vocabulary_size=17)
    data.setup("fit")
    assert (data.source_vocab.language, data.target_vocab.language) == ("de", "en")
    turned = TranslationData(str(file), source_language="en", tokenizer="words")
    assert turned.splits["train"][0]["source"] == data.splits["train"][0]["target"]
    assert turned.target_vocab.language == "de"


def test_a_data_module_of_records_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    rows = [{"translation": {"de": a, "en": b}} for a, b in pairs(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = german(str(file), hold_out=0.0)
    batch = data.dataset("train", scored=True)[np.arange(20)]
    assert list(zip(batch.texts or (), batch.gold or (), strict=True)) == pairs(20)


# Bundles


def bundle(folder: Path, source: Any, target: Any) -> str:
    folder.mkdir()
    (folder / "source_vocab.json").write_text(source.to_json(), encoding="utf-8")
    (folder / "target_vocab.json").write_text(target.to_json(), encoding="utf-8")
    return str(folder)


def test_a_bundle_lends_its_tokenizers(folder: str, tmp_path: Path) -> None:
    first = german(folder, joint=False)
    lent = bundle(tmp_path / "bundle", first.source_vocab, first.target_vocab)
    test = corpus(tmp_path / "other", test=[("eins neu", "one new")])
    data = TranslationData(f"{test}/test", vocabularies_from=lent, hold_out=0.0)
    data.setup("test")
    assert (data.source_vocab, data.target_vocab) == (first.source_vocab, first.target_vocab)
    (batch,) = data.test_dataloader()
    assert (batch.texts, batch.gold) == (["eins neu"], ["one new"])
    assert spelt(data, batch) == [("eins", "one")]
    assert data.notes == []


def test_a_bundle_of_other_languages_is_refused(folder: str, tmp_path: Path) -> None:
    first = german(folder)
    lent = bundle(tmp_path / "bundle", first.source_vocab, first.target_vocab)
    data = TranslationData(
        folder, source_language="en", target_language="de", vocabularies_from=lent
    )
    with pytest.raises(DataError) as caught:
        data.setup("test")
    assert str(caught.value) == (
        f"the model in {lent} translates from de to en, and the data is to be from en to de: give "
        "it data of its languages in data.source_language and data.target_language."
    )
    nameless = [SubwordVocabulary(first.source_vocab.tokenizer_json, language=None)] * 2
    data = german(folder, vocabularies_from=bundle(tmp_path / "nameless", *nameless))
    data.setup("test")
    assert data.source_vocab == first.source_vocab


def test_a_bundle_that_does_not_translate_is_refused(folder: str, tmp_path: Path) -> None:
    words, tags = Vocabulary(["a"], padding=True, unknown=1), Vocabulary(["O"])
    lent = bundle(tmp_path / "bundle", words, tags)
    with pytest.raises(DataError, match=f"the model in {lent} does not translate: give it its"):
        german(folder, vocabularies_from=lent).setup("test")


# Recipes


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"target_language": "de"},
            "data.source_language and data.target_language are both de: name two.",
        ),
        (
            {"tokenizer": "bpee"},
            "data.tokenizer is 'bpee': it must be one of bpe, wordpiece, unigram, words. Did you "
            "mean 'bpe'?",
        ),
        (
            {"columns": {"sources": 0}},
            "unknown key 'sources' in data.columns: pairs have the columns source and target. Did "
            "you mean 'source'?",
        ),
        ({"vocabulary_size": 4}, "data.vocabulary_size is 4: it must be 5 or more."),
        ({"max_length": 0}, "data.max_length is 0: it must be 1 or more."),
        ({"hold_out": 0.5}, "data.hold_out is 0.5: it must be 0 or more and less than 0.5."),
        ({"batch_size": 0}, "data.batch_size is 0: it must be 1 or more."),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(RecipeError) as caught:
        german("corpus", **options)
    assert str(caught.value) == error


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(TypeError, match="vocab_size"):
        german("corpus", vocab_size=3)


# Real corpora


@pytest.mark.real
@pytest.mark.parametrize("languages", [("de", "en"), ("en", "de")])
def test_multi30k_loads_in_both_directions(languages: tuple[str, str], corpora: Path) -> None:
    path = str(corpora / "multi30k-en-de")
    source, target = languages
    options: Any = {"source_language": source, "target_language": target}
    with pytest.raises(DataError, match="test2016 and test2017 could all be the test split: say"):
        TranslationData(path, **options).setup("fit")
    data = TranslationData(path, test="test2016", batch_size=64, **options)
    data.setup("fit")
    assert [len(data.splits[part]) for part in data.splits] == [29000, 1014, 1000]
    assert len(data.source_vocab) == len(data.target_vocab) == 8000
    assert sum(len(batch) for batch in data.train_dataloader()) == 29000
    assert data.notes == []
    words = {
        part: {side: _words(rows, side) for side in ("source", "target")}
        for part, rows in data.splits.items()
    }
    counts = {"train": (345020, 322383), "validation": (12167, 11568), "test": (11877, 10905)}
    for part, (english, other) in counts.items():
        assert words[part] == {
            "source": english if source == "en" else other,
            "target": english if target == "en" else other,
        }
    for batch in data.test_dataloader():
        assert data.target_vocab.decode(batch.target.tolist()) == batch.gold


@pytest.mark.real
def test_tatoeba_loads(corpora: Path) -> None:
    path = str(corpora / "tatoeba-en-fr")
    data = TranslationData(path, columns={"source": 0, "target": 1})
    data.setup("fit")
    assert [len(rows) for rows in data.splits.values()] == [100000, 2000, 2000]
    assert data.notes == []
    assert [_words(data.splits[part], "source") for part in data.splits] == [615744, 12663, 12657]
    assert [_words(data.splits[part], "target") for part in data.splits] == [669654, 13620, 13567]
    for batch in data.test_dataloader():
        assert data.target_vocab.decode(batch.target.tolist()) == batch.gold


def _words(rows: Any, side: str) -> int:
    return sum(len(text.split()) for (text,) in rows[side])
