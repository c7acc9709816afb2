from __future__ import annotations

import shutil
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from seqlab.__main__ import main
from seqlab.data.base import Encoded
from seqlab.data.classification import ClassificationData
from seqlab.data.rows import Dirt, Row
from seqlab.data.sampling import Ints
from seqlab.data.streaming import Stream, Streamed, StreamSampler, held
from seqlab.data.tagging import TaggingData
from seqlab.data.translation import TranslationData
from seqlab.errors import DataError, RecipeError
from seqlab.resuming import Place, place_of

SAMPLES = Path(__file__).resolve().parents[2] / "seqlab/samples"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def conll(sentences: Sequence[Sequence[tuple[str, str]]]) -> str:
    return "\n".join("".join(f"{w}\t{t}\n" for w, t in s) for s in sentences)


def word(number: int) -> str:
    """A word without digits, which vocabularies take for one another."""
    return "w" + "".join("abcdefghij"[int(digit)] for digit in str(number))


def corpus(folder: Path, count: int) -> Path:
    """Sentences of 1 to 9 words, each of which has a word of its own."""
    folder.mkdir(exist_ok=True)
    rows = [[(word(i), "B-PER"), *[("x", "O")] * (i * 7 % 9)] for i in range(count)]
    (folder / "train.conll").write_text(conll(rows), encoding="utf-8")
    (folder / "dev.conll").write_text(conll([[("Ada", "B-PER"), ("x", "O")]]), encoding="utf-8")
    return folder


class Pool:
    """A split whose batches are the sequences themselves."""

    def __init__(self, rows: Sequence[Streamed]) -> None:
        self.names = [row.tokens[0] for row, _ in rows]
        offsets = np.cumsum([0, *(len(row.tokens) for row, _ in rows)])
        self.encoded = Encoded(np.zeros(offsets[-1], np.int32), offsets)

    def __getitem__(self, index: Ints) -> Any:
        return [self.names[i] for i in index]


def rows(count: int) -> Iterator[Streamed]:
    for i in range(count):
        size = 1 + i * 7 % 9
        yield Streamed(Row([f"w{i}", *["x"] * (size - 1)], None, [i] * size, {}), 0)


def sampler(count: int = 100, rank: int = 0, world: int = 1, pool: int = 5) -> StreamSampler:
    return StreamSampler(
        lambda: rows(count), Pool, 4, 20, pool=pool, rank=rank, world_size=world, seed=3
    )


def batches(made: StreamSampler) -> list[tuple[list[str], bool]]:
    return [(piece.pool[piece.numbers], piece.repeated) for piece in made]


def names(found: Sequence[tuple[list[str], bool]]) -> list[str]:
    return [name for batch, repeated in found if not repeated for name in batch]


def test_every_row_comes_once_an_epoch_in_another_order_each() -> None:
    made = sampler()
    first, again = batches(made), batches(made)
    assert first == again
    assert sorted(names(first)) == sorted(f"w{i}" for i in range(100))
    made.set_epoch(1)
    other = batches(made)
    assert sorted(names(other)) == sorted(names(first))
    assert other != first


def test_batches_keep_to_their_budget_and_their_pools() -> None:
    for piece in sampler():
        lengths = piece.pool.encoded.lengths[piece.numbers]
        assert len(lengths) <= 4
        assert len(lengths) == 1 or len(lengths) * lengths.max() <= 20
        assert len(piece.pool.encoded.lengths) == 20


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(world: int) -> None:
    whole = batches(sampler(101))
    shares = [batches(sampler(101, rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    dealt = [batch for step in zip(*shares, strict=True) for batch in step]
    assert dealt[: len(whole)] == whole
    assert all(repeated for _, repeated in dealt[len(whole) :])
    assert len(dealt) - len(whole) == -len(whole) % world


def test_more_processes_than_batches_are_refused() -> None:
    with pytest.raises(DataError, match="3 processes cannot share the 1 batches of the stream"):
        list(sampler(1, 0, 3))


@pytest.mark.parametrize("done", [1, 7, 8, 30])
@pytest.mark.parametrize("after", [1, 2])
def test_an_epoch_goes_on_in_its_middle(done: int, after: int) -> None:
    """As it does after a kill, with as many processes or more."""
    whole = batches(sampler())
    before = sampler()
    before.taken = lambda: done
    steps = iter(before)
    for _ in range(done + 1):  # the trainer is one ahead
        next(steps)
    state = before.state_dict()
    assert (state["batches"], state["of"]) == (done, 0)
    assert state["rows"] <= 4 * done
    shares = []
    for rank in range(after):
        going = sampler(100, rank, after)
        going.load_state_dict(state)
        shares.append(batches(going))
    rest = [batch for step in zip(*shares, strict=True) for batch in step if not batch[1]]
    assert rest == whole[done:]


def test_rows_of_pools_that_are_done_are_not_encoded() -> None:
    encoded = []
    made = StreamSampler(
        lambda: rows(100), lambda r: encoded.append(len(r)) or Pool(r), 4, 1000, pool=5
    )
    made.load_state_dict({"epoch": 0, "batches": 15, "own": 15, "pool": 3, "first": 15, "rows": 60})
    assert len(list(made)) == 10
    assert encoded == [20, 20]


def test_a_place_in_a_stream_does_not_say_of_how_many() -> None:
    assert str(Place(3, 1200)) == "in epoch 3 after 1,200 batches"


def batch_words(data: TaggingData) -> Counter[tuple[int, ...]]:
    """The sentences of an epoch, as the ids of their words."""
    found: Counter[tuple[int, ...]] = Counter()
    for batch in data.train_dataloader():
        for row, length in zip(batch.source, batch.lengths, strict=True):
            found[tuple(row[:length].tolist())] += 1
    return found


def test_a_stream_has_the_sentences_of_the_corpus_read_whole(tmp_path: Path) -> None:
    folder = str(corpus(tmp_path / "corpus", 300))
    whole, stream = (
        TaggingData(folder, hide_rare=0.0, hold_out=0.0, streaming=streaming)
        for streaming in (False, True)
    )
    for data in (whole, stream):
        data.setup("fit")
    assert stream.source_vocab.tokens == whole.source_vocab.tokens
    assert stream.target_vocab.tokens == whole.target_vocab.tokens
    assert batch_words(stream) == batch_words(whole)


def test_nothing_of_the_training_split_is_in_the_cache(tmp_path: Path, cache: Path) -> None:
    data = TaggingData(str(corpus(tmp_path / "corpus", 50)), streaming=True)
    data.setup("fit")
    assert sum(len(batch.lengths) for batch in data.train_dataloader()) == 50
    assert [len(batch.lengths) for batch in data.val_dataloader()] == [1]
    files = [file.read_bytes() for file in cache.rglob("*") if file.is_file()]
    assert any(b"Ada" in content for content in files)
    assert not any(word(17).encode() in content for content in files)
    assert "train" not in data.splits
    assert list(data.digests) == ["validation"]


def test_vocabularies_are_made_from_the_first_rows(tmp_path: Path) -> None:
    data = TaggingData(str(corpus(tmp_path / "corpus", 50)), streaming=True, streaming_sample=20)
    data.setup("fit")
    assert word(19) in data.source_vocab
    assert word(20) not in data.source_vocab
    assert data.notes == [
        "vocabularies and labels are made from the first 20 sentences of the stream "
        "(data.streaming_sample)."
    ]


def test_a_tag_beyond_the_sample_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", 50)
    with open(folder / "train.conll", "a", encoding="utf-8") as out:
        out.write("\nParis\tB-LOC\n")
    line = len((folder / "train.conll").read_text("utf-8").splitlines())
    data = TaggingData(str(folder), streaming=True, streaming_sample=20)
    data.setup("fit")
    with pytest.raises(DataError, match=rf"train.conll:{line}: .* 'B-LOC' \(the first 20 .*lab"):
        list(data.train_dataloader())
    told = TaggingData(str(folder), streaming=True, streaming_sample=20, labels=["PER", "LOC"])
    told.setup("fit")
    assert len(list(told.train_dataloader())) > 1


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    first, second = corpus(tmp_path / "a", 5), corpus(tmp_path / "b", 7)
    with open(second / "train.conll", "a", encoding="utf-8") as out:
        out.write("\nParis\tB-LOC\n")
    files = [str(folder / "train.conll") for folder in (first, second)]
    options: dict[str, Any] = {"train": files, "validation": str(first / "dev.conll")}
    data = TaggingData(streaming=True, streaming_sample=5, **options)
    data.setup("fit")
    with pytest.raises(DataError, match="b/train.conll:"):
        list(data.train_dataloader())
    data = TaggingData(streaming=True, **options)
    data.setup("fit")
    assert sum(len(batch.lengths) for batch in data.train_dataloader()) == 13


def test_files_with_other_columns_are_refused() -> None:
    plain = Row(["a"], ["O"], [1], {})
    more = Row(["a"], ["O"], [1], {"pos": ["X"]})
    with pytest.raises(DataError, match="columns pos, tags, tokens, and before them tags, tokens"):
        held([Streamed(plain, 0), Streamed(more, 1)])


def test_long_documents_are_cut_as_ever(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", 30)
    data = TaggingData(str(folder), streaming=True, max_length=4)
    data.setup("fit")
    loaded = list(data.train_dataloader())
    assert max(int(batch.lengths.max()) for batch in loaded) == 4
    assert sum(int(batch.lengths.sum()) for batch in loaded) == sum(
        1 + i * 7 % 9 for i in range(30)
    )
    assert data.notes[-1] == (
        "training documents of more than 4 tokens were cut into pieces between spans; nothing was "
        "left out (data.max_length)."
    )


def test_what_is_skipped_is_said_when_all_was_read(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", 5)
    with open(folder / "train.conll", "a", encoding="utf-8") as out:
        out.write("\n \tO\nx\tO\n")
    data = TaggingData(str(folder), streaming=True, streaming_sample=2)
    data.setup("fit")
    list(data.train_dataloader())
    list(data.train_dataloader())
    assert sum("with an empty token was skipped" in note for note in data.notes) == 1


def test_labelled_texts_are_streamed(tmp_path: Path) -> None:
    lines = [f"text {i}\t{'ab'[i % 2]}\n" for i in range(40)]
    for split in ("train", "dev"):
        text = "text\tlabel\n" + "".join(lines)
        (tmp_path / f"{split}.tsv").write_text(text, encoding="utf-8")
    data = ClassificationData(str(tmp_path), streaming=True)
    data.setup("fit")
    targets = torch.cat([batch.target for batch in data.train_dataloader()])
    assert targets.bincount().tolist() == [20, 20]
    with open(tmp_path / "train.tsv", "a", encoding="utf-8") as out:
        out.write("more\tc\n")
    data = ClassificationData(str(tmp_path), streaming=True, streaming_sample=40)
    data.setup("fit")
    with pytest.raises(DataError, match=r"train.tsv:42: .* the label 'c' \(the first 40 texts"):
        list(data.train_dataloader())


@pytest.mark.parametrize("parallel", [False, True])
def test_pairs_are_streamed(parallel: bool, tmp_path: Path, cache: Path) -> None:
    for split in ("train", "dev"):
        pairs = [(f"eins zwei {split}{i}", f"one two {split}{i}") for i in range(60)]
        if parallel:
            for at, side in enumerate(("de", "en")):
                text = "".join(f"{pair[at]}\n" for pair in pairs)
                (tmp_path / f"{split}.{side}").write_text(text, encoding="utf-8")
        else:
            text = "source\ttarget\n" + "".join("\t".join(pair) + "\n" for pair in pairs)
            (tmp_path / f"{split}.tsv").write_text(text, encoding="utf-8")
    languages = {"source_language": "de", "target_language": "en"} if parallel else {}
    data = TranslationData(str(tmp_path), streaming=True, vocabulary_size=300, **languages)
    data.setup("fit")
    found: list[str] = []
    for batch in data.train_dataloader():
        found += data.source_vocab.decode(batch.source.tolist())
    assert sorted(found) == sorted(f"eins zwei train{i}" for i in range(60))
    content = [file.read_bytes() for file in cache.rglob("*.arrow")]
    assert any(b"dev17" in text for text in content)
    assert not any(b"train17" in text for text in content)
    short = TranslationData(
        str(tmp_path), streaming=True, vocabulary_size=300, max_length=1, **languages
    )
    short.setup("fit")
    assert list(short.train_dataloader()) == []
    assert "pairs of more than 1 pieces on a side are left out of the stream" in short.notes[-1]


def test_a_folder_laid_out_as_on_the_hub_is_streamed(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)

    def write(name: str, sentences: list[tuple[list[str], list[int]]]) -> None:
        table = pa.table(
            {"tokens": [s[0] for s in sentences], "ner_tags": [s[1] for s in sentences]}
        )
        kind = '{"_type": "Sequence", "feature": {"names": ["O", "B-PER", "B-LOC"], "_type": '
        kind += '"ClassLabel"}}'
        text = '{"_type": "Sequence", "feature": {"dtype": "string", "_type": "Value"}}'
        meta = f'{{"info": {{"features": {{"tokens": {text}, "ner_tags": {kind}}}}}}}'
        pq.write_table(table.replace_schema_metadata({"huggingface": meta}), folder / "data" / name)

    write("train-00000-of-00002.parquet", [([f"w{i}", "x"], [1, 0]) for i in range(30)])
    write("train-00001-of-00002.parquet", [([f"v{i}", "x"], [1, 0]) for i in range(20)])
    write("validation-00000-of-00001.parquet", [(["Ada"], [1])])
    (folder / "README.md").write_text("# a corpus\n", encoding="utf-8")
    data = TaggingData(str(folder), streaming=True)
    data.setup("fit")
    assert "S-PER" in data.target_vocab
    assert sum(len(batch.lengths) for batch in data.train_dataloader()) == 50
    files = [file.read_bytes() for file in cache.rglob("*") if file.is_file()]
    assert not any(b"w17" in content for content in files)
    write("train-00001-of-00002.parquet", [(["Paris"], [2])])
    data = TaggingData(str(folder), streaming=True, streaming_sample=30)
    data.setup("fit")
    with pytest.raises(DataError, match=r"hub \(train\):31: the model does not know .* 'B-LOC'"):
        list(data.train_dataloader())


def test_memory_does_not_grow_with_the_corpus() -> None:
    def read(dirt: Dirt, count: int) -> Iterator[Row]:
        for i in range(count):
            yield Row([f"word{i}"] * 10, ["O"] * 10, [i] * 10, {})

    def peak(count: int) -> int:
        stream = Stream([lambda dirt: read(dirt, count)], "rows", "sentence", print)
        made = StreamSampler(stream, Held, 4, 100, pool=20)
        tracemalloc.start()
        assert sum(len(piece.numbers) for piece in made) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    class Held(Pool):
        def __init__(self, rows: Sequence[Streamed]) -> None:
            super().__init__(rows)
            self.table = held(rows)

    peak(100)
    assert peak(8000) < 2.5 * peak(800)  # a pool, and what waits for the garbage collector


def test_what_does_not_go_with_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="data.tokens_per_batch is auto, .* give a number"):
        TaggingData("x", streaming=True, tokens_per_batch="auto")
    with pytest.raises(RecipeError, match="data.num_workers is 2, and data.streaming is true"):
        TaggingData("x", streaming=True, num_workers=2)
    folder = corpus(tmp_path / "corpus", 5)
    (folder / "dev.conll").unlink()
    sentence = "has no validation split, and of a stream none is held out: give data.validation"
    with pytest.raises(DataError, match=sentence):
        TaggingData(str(folder), streaming=True).setup("fit")


def fit(recipe: str, *words: str) -> int:
    small = (
        "--trainer.accelerator",
        "cpu",
        "--trainer.max_epochs",
        "1",
        "--data.streaming",
        "true",
    )
    return main(["fit", recipe, *small, *words])


@pytest.mark.slow
def test_all_tasks_train_on_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "runs"))
    tiny = ("--model.hidden_size", "8", "--model.embedding_size", "8")
    assert fit("ner", "--model.hidden_size", "8", "--trainer.max_steps", "20") == 0
    assert fit("sentiment", *tiny) == 0
    decoder = ("--model.decoder_size", "8")
    assert fit("translate", *tiny, *decoder) == 2
    assert "model.schedule is cosine, which falls to the last step" in capsys.readouterr().err
    assert fit("translate", *tiny, *decoder, "--trainer.max_steps", "30") == 0
    last = tmp_path / "runs/translate/2/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 30
    lone = shutil.copy(SAMPLES / "ner/test.conll", tmp_path / "lone.conll")
    assert main(["test", str(tmp_path / "runs/ner/1"), "--data.path", str(lone)]) == 0


def weights(last: Path) -> dict[str, Any]:
    return dict(torch.load(last, weights_only=True)["state_dict"])


@pytest.mark.slow
def test_a_run_on_a_stream_goes_on_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was interrupted ends with the weights of a run that never was."""
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "runs"))
    words = ("--model.hidden_size", "8", "--data.path", str(corpus(tmp_path / "corpus", 3000)))
    words = (*words, "--data.batch_size", "8", "--data.streaming_sample", "300")
    assert fit("ner", *words) == 0
    stopped = (*words, "--checkpoint.every_seconds", "0.05")
    from seqlab import callbacks

    write = callbacks.RunKeeper._write_within

    def then_stop(keeper: callbacks.RunKeeper, trainer: Any) -> None:
        write(keeper, trainer)
        if trainer.global_step > 220:
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.RunKeeper, "_write_within", then_stop)
    assert fit("ner", *stopped) != 0
    monkeypatch.setattr(callbacks.RunKeeper, "_write_within", write)
    last = tmp_path / "runs/ner/2/last.ckpt"
    place = place_of(torch.load(last, weights_only=True))
    assert place.batches > 200
    capsys.readouterr()
    assert fit("ner", *words, "--ckpt_path", str(last.parent)) == 0
    assert f"{place}" in capsys.readouterr().err
    whole, resumed = (weights(tmp_path / f"runs/ner/{n}/last.ckpt") for n in (1, 2))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0, msg=name)
