from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from seqlab.data.formats import Dirt, Row, read_rows, sniff
from seqlab.errors import DataError

REAL = os.environ.get("SEQLAB_DATA")
real = pytest.mark.skipif(not REAL, reason="SEQLAB_DATA is not set: no real corpora to read")


@pytest.fixture
def file(tmp_path: Path):
    def write(content: str | bytes, name: str = "corpus") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def told(path: Path, columns: dict[str, Any] | None = None, tagged: bool = True) -> list[tuple]:
    return [(row.tokens, row.tags) for row in read_rows(path, columns, tagged=tagged)]


def failure(path: Path, columns: dict[str, Any] | None = None, tagged: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(path, columns, tagged=tagged))
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


# CoNLL columns


def test_conll_with_tabs_keeps_tokens_tags_and_line_numbers(file):
    path = file("Ada\tB-PER\nslept\tO\n\nSo\tO\n")
    assert sniff(path) == "conll"
    assert list(read_rows(path)) == [
        Row(["Ada", "slept"], ["B-PER", "O"], [1, 2], {}),
        Row(["So"], ["O"], [4], {}),
    ]


def test_conll_with_runs_of_spaces_reads_numbered_columns(file):
    path = file("Ada  NNP B-NP\nslept VBD  B-VP\n")
    row = next(read_rows(path, {"tokens": 0, "tags": -1, "pos": 1}))
    assert (row.tags, row.features) == (["B-NP", "B-VP"], {"pos": ["NNP", "VBD"]})


def test_document_starts_and_lines_of_white_space_end_sentences(file):
    path = file("-DOCSTART- -X- O\n\na X O\n \t\nb X O\n-DOCSTART- O\nc X O")
    assert [tokens for tokens, _ in told(path)] == [["a"], ["b"], ["c"]]


def test_crlf_byte_order_mark_and_gzip_change_nothing(file):
    plain = told(file("é\tO\nb\tB-X\n\nc\tO\n"))
    windows = "\ufeffé\tO\r\nb\tB-X\r\n\r\nc\tO\r\n".encode()
    assert told(file(windows)) == plain
    assert told(file(gzip.compress(windows), "corpus.txt")) == plain


def test_a_hash_with_a_tag_is_a_token_and_a_comment_is_not(file):
    tabs = file("# id 7e\tdomain=en\n#\tO\n# text = x\tO\n#MH17\tB-X\n\n# sent_id = 2\nb\tO\n")
    assert [tokens for tokens, _ in told(tabs)] == [["#", "# text = x", "#MH17"], ["b"]]
    spaces = file("# # B-NP\n5 CD I-NP\n\n# NN O\n")
    assert [tokens for tokens, _ in told(spaces)] == [["#", "5"], ["#"]]


def test_another_number_of_columns_is_an_error_with_its_line(file):
    message = failure(file("a\tO\nb\tX\tO\n", "train.conll"))
    assert message.startswith("train.conll:2: 3 columns where the lines before have 2; give")
    assert "train.conll:2: 1 column where" in failure(file("a\tO\nb O\n", "train.conll"))
    assert "separated by spaces" in failure(file("a X O\nb X O\nc O\n"))


def test_an_empty_token_is_left_out_and_noted_and_ends_no_sentence(file):
    dirt = Dirt()
    path = file("a\tO\n\tO\n \tO\n\x07\tO\nb\tB-X\n\n\tO\n\nc\tO\n", "train.conll")
    rows = list(read_rows(path, dirt=dirt))
    assert [(row.tokens, row.lines) for row in rows] == [(["a", "b"], [1, 5]), (["c"], [9])]
    assert dirt.sentences() == [
        "train.conll: 4 lines with an empty token were skipped (lines 2, 3, 4, 7)."
    ]


def test_dirt_counts_on_where_it_stops_listing():
    dirt = Dirt()
    dirt.note("with an empty token", "b", 7)
    for line in range(1, 1013):
        dirt.note("without any token", "a", line, "mended")
    assert dirt.sentences() == [
        "b: 1 line with an empty token was skipped (line 7).",
        "a: 1,012 lines without any token were mended "
        "(lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 1,002 more).",
    ]


def test_emoji_unicode_spaces_and_odd_separators_stay_in_tokens(file):
    tokens = ["🤷🏽‍♀️", "no\u00a0break", "line\u2028sep", "a\x85b", "\x0bc", "e\u0301", "1 1/2"]
    path = file("".join(f"{token}\tO\n" for token in tokens))
    assert told(path) == [(tokens, ["O"] * len(tokens))]
    spaces = file("a\u00a0b NN O\nc\u2009d NN O\n")
    assert told(spaces)[0][0] == ["a\u00a0b", "c\u2009d"]


def test_a_sentence_of_many_tokens_is_read_whole(file):
    assert len(told(file("a\tO\n" * 100_000))[0][0]) == 100_000


def test_bad_utf8_is_an_error_with_its_line(file):
    message = failure(file(b"a\tO\nb\xe9\tO\n", "train.conll"))
    assert message.startswith("train.conll:2: not UTF-8 (")
    assert "`iconv -f LATIN1 -t UTF-8`" in message
    assert "UTF-16" in failure(file("a\tO\n".encode("utf-16")))


def test_cut_gzip_is_an_error(file):
    packed = gzip.compress(os.urandom(400_000).hex().encode() + b"\tO\n")
    assert "get it anew" in failure(file(packed[:-2000], "train.gz"))
    assert "get it anew" in failure(file(packed[:300], "train.gz"))


@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- -X- O\n\n", "# text = a\n\n", "\tO\n"])
def test_a_file_without_a_sentence_is_an_error(file, content):
    for tagged in (True, False):
        assert failure(file(content), tagged=tagged).startswith("corpus holds no sentence: ")


def test_missing_files_and_folders_are_errors(tmp_path):
    assert "No such file" in failure(tmp_path / "train.conll")
    assert "cannot read" in failure(tmp_path)


def test_conll_columns_that_are_not_there_are_errors(file):
    path = file("a\tO\n")
    assert "corpus:1: no column 5 for the tags" in failure(path, {"tags": 5})
    assert "no column 'form' for the tokens; the columns have no names" in failure(
        path, {"tokens": "form"}
    )
    assert "no column 2 for the pos" in failure(path, {"pos": 2}, tagged=False)


def test_an_empty_tag_is_an_error_only_where_tags_are_needed(file):
    path = file("a\t\nb\tO\n")
    assert "corpus:1: the token 'a' has an empty tag" in failure(path)
    assert told(path, tagged=False) == [(["a", "b"], ["", "O"])]


def test_one_column_is_enough_for_prediction_only(file):
    path = file("Ada\nslept\n\nSo\n")
    assert sniff(path) == "conll"
    assert told(path, tagged=False) == [(["Ada", "slept"], None), (["So"], None)]
    assert "would be both token and tag" in failure(path)


def test_prediction_tolerates_a_missing_tag_column(file):
    path = file("Ada NNP\nslept VBD\n\nSo RB\n")
    columns = {"tokens": 0, "pos": 1, "tags": 2}
    (first, *_) = read_rows(path, columns, tagged=False)
    assert first == Row(["Ada", "slept"], None, [1, 2], {"pos": ["NNP", "VBD"]})


# CoNLL-U

CONLLU = """\
# newdoc id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\tMood=Imp|Number=Plur\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\tNumber=Plur\t1\tobj\t_\tSpaceAfter=No
3\t10 000\t10000\tNUM\t_\t_\t1\tobj\t_\t_
3.1\tx\tx\tX\t_\t_\t_\t_\t_\t_

1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def test_conllu_gives_words_without_ranges_and_empty_nodes(file):
    path = file(CONLLU)
    assert sniff(path) == "conllu"
    assert list(read_rows(path)) == [
        Row(["vamos", "nos", "10 000"], ["VERB", "PRON", "NUM"], [4, 5, 6], {}),
        Row(["#"], ["SYM"], [9], {}),
    ]


def test_conllu_columns_have_names_numbers_and_single_features(file):
    columns = {"tokens": "lemma", "tags": "feats.Number", "head": "head", "rel": 7, "pos": "xpos"}
    columns |= {"space": "misc.SpaceAfter"}
    row = next(read_rows(file(CONLLU), columns))
    assert (row.tokens, row.tags) == (["ir", "nosotros", "10000"], ["Plur", "Plur", "_"])
    assert row.features == {
        "head": ["0", "1", "1"],
        "rel": ["root", "obj", "obj"],
        "pos": ["V", "P", "_"],
        "space": ["_", "No", "_"],
    }


def test_conllu_errors_name_line_and_columns(file):
    path = file(CONLLU)
    assert "no column 'upso' for the tags; the columns are id, form, lemma, upos" in failure(
        path, {"tags": "upso"}
    )
    assert "Did you mean 'upos'?" in failure(path, {"tags": "upso"})
    assert "corpus:5: 9 columns where" in failure(file(CONLLU.replace("\tSpaceAfter=No", "")))
    assert "corpus:5: 'two' is no word number" in failure(
        file(CONLLU.replace("2\tnos", "two\tnos"))
    )


# JSONL


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.mark.parametrize(
    ("tokens", "tags"),
    [("tokens", "tags"), ("words", "ner_tags"), ("tokens", "pos_tags"), ("words", "labels")],
)
def test_jsonl_lists_are_found_under_their_usual_names(file, tokens, tags):
    path = file("\n" + jsonl({"id": 1, tags: ["B-PER", "O"], tokens: ["Ada", "slept"]}))
    assert sniff(path) == "jsonl"
    assert list(read_rows(path)) == [Row(["Ada", "slept"], ["B-PER", "O"], [2, 2], {})]


def test_jsonl_keys_and_features_can_be_named(file):
    path = file(jsonl({"w": ["a"], "g": ["O"], "p": ["DT"], "tags": ["X"]}))
    (row,) = read_rows(path, {"tokens": "w", "tags": "g", "pos": "p"})
    assert row == Row(["a"], ["O"], [1], {"pos": ["DT"]})


def test_jsonl_key_order_and_a_plain_name_decide_nothing_wrongly(file):
    both = {"ner_tags": ["O"], "tokens": ["a"], "pos_tags": ["DT"]}
    assert "ner_tags and pos_tags could all be the tags" in failure(file(jsonl(both)))
    assert told(file(jsonl({**both, "tags": ["Y"]}))) == [(["a"], ["Y"])]
    (row,) = read_rows(file(jsonl(both)), {"pos": "pos_tags"})
    assert (row.tags, row.features) == (["O"], {"pos": ["DT"]})


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ({"tokens": ["a"], "tags": [3]}, "tags is no list of strings"),
        ({"tokens": "a", "tags": ["O"]}, "tokens is no list of strings"),
        ({"tokens": ["a"]}, "no 'tags', which the records before have"),
        ({"tokens": ["a"], "tags": None}, "no 'tags', which the records before have"),
        ([1], "not a JSON object"),
    ],
)
def test_a_bad_record_is_an_error_with_its_line(file, second, expected):
    path = file(jsonl({"tokens": ["a"], "tags": ["O"]}, second), "train.jsonl")
    assert failure(path).startswith(f"train.jsonl:2: {expected}")


def test_broken_json_is_an_error_with_its_line(file):
    good = jsonl({"tokens": ["a"], "tags": ["O"]})
    assert "corpus:2: not JSON" in failure(file(good + '{"tokens": ["a"\n'))
    assert "corpus:1: not a JSON object" in failure(file('[{"tokens": ["a"], "tags": ["O"]}]\n'))
    assert "corpus:1: not JSON" in failure(file('{\n  "tokens": ["a"]\n}\n'))
    assert "corpus:1: half a surrogate pair" in failure(
        file('{"tokens": ["\\ud83d"], "tags": ["O"]}\n')
    )
    assert told(file('{"tokens": ["\\ud83d\\ude00"], "tags": ["O"]}\n')) == [(["😀"], ["O"])]


def test_jsonl_without_usable_keys_lists_them(file):
    path = file(jsonl({"text": "hello", "label": "greeting"}))
    assert "no tokens with tags (two lists), or a text with spans; the keys are text, label" in (
        failure(path)
    )
    message = failure(file(jsonl({"tokens": ["a"], "tags": ["O"]})), {"tags": "tgas"})
    assert "no key 'tgas' for the tags; the keys are tokens, tags. Did you mean 'tags'?" in message


def test_empty_tokens_in_lists_are_left_out_with_their_tags(file):
    dirt = Dirt()
    records = [{"tokens": ["a", " ", "b"], "tags": ["O", "X", "Y"]}, {"tokens": [], "tags": []}]
    assert [(r.tokens, r.tags) for r in read_rows(file(jsonl(*records)), dirt=dirt)] == [
        (["a", "b"], ["O", "Y"])
    ]
    assert dirt.sentences() == [
        "corpus: 1 line with an empty token was kept without it (line 1).",
        "corpus: 1 line without any token was skipped (line 2).",
    ]


@pytest.mark.parametrize(
    "spans",
    [
        {"spans": [{"start": 13, "end": 19, "label": "LOC"}, {"start": 0, "end": 3, "label": "P"}]},
        {"entities": [[0, 3, "P"], [13, 19, "LOC"]]},
        {"label": [[0, 3, "P"], [13, 19, "LOC"]], "id": 4},
        {"labels": [{"start_offset": 0, "end_offset": 3, "label": "P"}, [13, 19, "LOC"]]},
    ],
)
def test_spans_of_characters_become_iob2_tags(file, spans):
    (row,) = read_rows(file(jsonl({"text": "Ada lives in London.", **spans})))
    assert row == Row(
        ["Ada", "lives", "in", "London", "."],
        ["B-P", "O", "O", "B-LOC", "O"],
        [1] * 5,
        {},
        "Ada lives in London.",
        [(0, 3), (4, 9), (10, 12), (13, 19), (19, 20)],
    )


def test_words_are_cut_at_the_borders_of_spans(file):
    text = "🙂 Londoners York Times"
    spans = [[2, 8, "LOC"], [8, 11, "SUF"], [11, 22, "ORG"]]
    (row,) = read_rows(file(jsonl({"text": text, "spans": spans})))
    assert row.tokens == ["🙂", "London", "ers", "York", "Times"]
    assert row.tags == ["O", "B-LOC", "B-SUF", "B-ORG", "I-ORG"]
    assert [text[start:end] for start, end in row.offsets] == row.tokens


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([[0, 3, "A"], [2, 5, "B"]], "the spans A 0-3 and B 2-5 overlap"),
        ([[0, 3, "A"], [0, 3, "B"]], "the spans A 0-3 and B 0-3 overlap"),
        ([[4, 40, "A"]], "the span A 4-40 is empty or lies outside the text, which has 9"),
        ([[-1, 3, "A"]], "the span A -1-3 is empty or lies outside"),
        ([[3, 3, "A"]], "the span A 3-3 is empty or lies outside"),
        ([[3, 4, "A"]], "the span A 3-4 holds no word"),
        ([[0, True, "A"]], "[0, True, 'A'] is no span"),
        ([[0, 3]], "[0, 3] is no span"),
        ([{"start": 0, "end": 3}], "{'start': 0, 'end': 3} is no span"),
        ([{"start": 0, "end": 3, "label": ""}], "{'start': 0, 'end': 3, 'label': ''} is no span"),
        ("none", "'none' is no span"),
    ],
)
def test_a_bad_span_is_an_error_with_its_line(file, spans, expected):
    path = file(jsonl({"text": "Ada", "spans": []}, {"text": "Ada slept", "spans": spans}))
    assert failure(path).startswith(f"corpus:2: {expected}")


def test_a_text_without_spans_is_all_outside_or_untagged(file):
    assert told(file(jsonl({"text": "Ada", "spans": []}))) == [(["Ada"], ["O"])]
    assert told(file(jsonl({"text": "Ada"})), tagged=False) == [(["Ada"], None)]
    assert told(file(jsonl({"tokens": ["Ada!"]})), {"tags": "t"}, tagged=False) == [
        (["Ada!"], None)
    ]


def test_annotated_text_with_token_objects_is_read_by_its_spans(file):
    record = {
        "text": "Ada",
        "tokens": [{"text": "Ada", "start": 0, "end": 3, "id": 0}],
        "spans": [{"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "P"}],
    }
    assert told(file(jsonl(record))) == [(["Ada"], ["B-P"])]


# CSV and TSV


def test_csv_with_a_token_a_row_starts_a_sentence_at_each_new_value(file):
    path = file(
        "Sentence #,Word,POS,Tag\nSentence: 1,Ada,NNP,B-per\n,slept,VBD,O\n"
        'Sentence: 2,"1,000",CD,O\n,"""",``,O\n'
    )
    assert sniff(path) == "csv"
    assert list(read_rows(path, {"pos": "POS"})) == [
        Row(["Ada", "slept"], ["B-per", "O"], [2, 3], {"pos": ["NNP", "VBD"]}),
        Row(["1,000", '"'], ["O", "O"], [4, 5], {"pos": ["CD", "``"]}),
    ]


def test_csv_sentences_may_repeat_their_number_or_stand_between_blank_lines(file):
    numbered = file("sentence_id;token;ner\n1;a;O\n1;b;O\n2;c;O\n")
    blank = file("token\ttag\na\tO\nb\tO\n\nc\tO\n", "blank")
    assert sniff(blank) == "tsv"
    expected = [(["a", "b"], ["O", "O"]), (["c"], ["O"])]
    assert told(numbered) == expected
    assert told(blank) == expected


def test_csv_with_a_sentence_a_row_splits_at_spaces(file):
    path = file('id,tokens,ner_tags\n1,"Ada  slept , long","B-PER O O O"\n2,So,O\n')
    assert told(path) == [
        (["Ada", "slept", ",", "long"], ["B-PER", "O", "O", "O"]),
        (["So"], ["O"]),
    ]
    plain = file("sentence\ttags\nAda slept\tB-PER O\n")
    assert told(plain) == [(["Ada", "slept"], ["B-PER", "O"])]


def test_tsv_keeps_lone_quotation_marks_and_unquotes_doubled_ones(file):
    bare = file('token\ttag\n"\tO\n"a"\tO\n""""\tO\n"""b"\tO\n\n')
    assert told(bare)[0][0] == ['"', '"a"', '"', '"b']
    quoted = file('"token"\t"tag"\n""""\t"O"\n"a"\t"O"\n\n')
    assert told(quoted)[0][0] == ['"', "a"]


def test_csv_columns_can_be_numbered_and_names_need_not_be_known(file):
    path = file("satz,mot,etiquette\n1,a,O\n\n2,b,X\n")
    expected = [(["a"], ["O"]), (["b"], ["X"])]
    assert told(path, {"tokens": "mot", "tags": "etiquette"}) == expected
    known = file("sentence_id,word,x,tag\n1,a,Y,O\n")
    assert told(known, {"tags": 2}) == [(["a"], ["Y"])]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("tokens,tags\na b,O O\na b,O\n", "corpus:3: 2 tokens but 1 tags"),
        ("tokens,tags\na b,O O\na,b,O\n", "corpus:3: 3 columns where the header has 2"),
        ('tokens,tags\na b,O O\n"a" b,O O\n', "corpus:3: no row of a table"),
        ('tokens,tags\na b,O O\n"a,O\n', "corpus:3: no row of a table"),
        ("token,tag\na,O\nb,O\n", "corpus:2: one token a row, but no column tells the sentence"),
        ("word,pos,ner\na,X,O\n\n", "corpus:1: pos and ner could all be the tags"),
        ("sentence_id,word\n1,a\n", "corpus:1: no column of tags; the columns are sentence_id"),
        ("tokens,tags\n\"['a', 'b']\",\"['O', 'O']\"\n", "corpus:2: a list as Python prints it"),
        ("tokens,tags\n", "corpus holds no sentence"),
        (
            "text\tlabel\ngood . but long\tpos\n",
            "corpus:2: 4 tokens but 1 tags; separate both by spaces, one of them for every token. "
            "A label of the whole text is for seqlab.ClassificationData.",
        ),
    ],
)
def test_a_bad_table_is_an_error_with_its_line(file, content, expected):
    assert failure(file(content)).startswith(expected)


def test_a_missing_column_of_a_table_lists_those_there_are(file):
    message = failure(file("sentence_id,word,tag\n1,a,O\n"), {"tags": "tga"})
    assert message == (
        "corpus: no column 'tga' for the tags; the columns are sentence_id, word, tag. "
        "Did you mean 'tag'?"
    )


def test_csv_gives_raw_text_for_prediction(file):
    path = file('id,text\n1,"Hello, you!"\n2,Bye\n')
    rows = list(read_rows(path, tagged=False))
    assert [(row.tokens, row.tags) for row in rows] == [
        (["Hello", ",", "you", "!"], None),
        (["Bye"], None),
    ]
    assert (rows[0].text, rows[0].offsets[-1]) == ("Hello, you!", (10, 11))
    labelled = file("text\tlabel\ngood . but long\tpos\n")
    assert told(labelled, tagged=False) == [(["good", ".", "but", "long"], None)]


def test_csv_cells_of_long_documents_are_read_whole(file):
    path = file(f"tokens,tags\n{'word ' * 100_000},{'O ' * 100_000}\n")
    assert len(told(path)[0][0]) == 100_000


# Parquet


def parquet(path: Path, columns: dict[str, list], metadata: dict[str, Any] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path)
    return path


def test_parquet_with_strings_is_read_in_order(tmp_path):
    words = [[f"w{i}"] * (1 + i % 3) for i in range(2500)]
    path = parquet(tmp_path / "x", {"tokens": words, "tags": [["O"] * len(w) for w in words]})
    rows = list(read_rows(path))
    assert sniff(path) == "parquet"
    assert [row.tokens for row in rows] == words
    assert rows[-2].lines == [2499, 2499, 2499]


def test_parquet_numbers_become_the_names_in_the_schema(tmp_path):
    label = {"_type": "ClassLabel", "names": ["O", "B-X"]}
    features = {"words": {"feature": {"_type": "Value"}, "_type": "List"}}
    columns = {"words": [["a", "b"]], "ner_tags": [[1, 0]]}
    for kind in ({"feature": label, "_type": "Sequence"}, [label]):
        metadata = {"info": {"features": {**features, "ner_tags": kind}}}
        path = parquet(tmp_path / "x.parquet", columns, metadata)
        assert told(path) == [(["a", "b"], ["B-X", "O"])]
    assert "x.parquet, row 1: ner_tags is no list of strings" in failure(
        parquet(tmp_path / "x.parquet", columns)
    )


def test_parquet_errors_name_the_row_or_the_file(tmp_path):
    path = parquet(tmp_path / "x", {"tokens": [["a"], ["b"]], "tags": [["O"], []]})
    assert failure(path).startswith("x, row 2: 1 tokens but 0 tags")
    path.write_bytes(path.read_bytes()[:-9])
    assert "x: not a whole parquet file" in failure(path)
    empty = parquet(tmp_path / "y", {"tokens": [], "tags": []})
    assert failure(empty).startswith("y holds no sentence")


# Raw text


def test_text_is_a_sequence_a_line_with_offsets_and_only_for_prediction(file):
    path = file("Ada slept.\n\n  \t\n\x07\nAnd  so?\n")
    assert sniff(path) == "text"
    dirt = Dirt()
    assert list(read_rows(path, dirt=dirt, tagged=False)) == [
        Row(["Ada", "slept", "."], None, [1] * 3, {}, "Ada slept.", [(0, 3), (4, 9), (9, 10)]),
        Row(["And", "so", "?"], None, [5] * 3, {}, "And  so?", [(0, 3), (5, 7), (7, 8)]),
    ]
    assert dirt.sentences() == ["corpus: 1 line without any word was skipped (line 4)."]
    assert "no column for the feature 'pos'" in failure(path, {"pos": "pos"}, tagged=False)
    message = failure(file("Ada lived in London .\nShe slept .\nNobody knows where she was .\n"))
    assert message.startswith("corpus:1: no tags: the file reads like raw text")


@pytest.mark.parametrize(
    "content",
    [
        "I met Ada at NASA\n",
        "See you there .\nThat was a very long day .\nAnd now , after all , we sleep .\nOh !\n",
        "hello\n",
        "Hello.\n\nBye.\n\nThanks.\n",
        "{ this is no json\n",
        "你好。\n\n再见。\n",
        "She looks like a boy.\tElle a l'air d'un garçon.\n" * 3,
        "Well, yes, the word, a tag\nor two\n",
        "cats purr softly\ndogs bark loudly\nbirds sing daily\ncows moo often\n",
    ],
)
def test_sniff_tells_raw_text(file, content):
    assert sniff(file(content)) == "text"


@pytest.mark.parametrize(
    "content",
    [
        "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n",
        "EU B-ORG\n",
        "the DET\ncat NOUN\nsat VERB\n. PUNCT\n",
        "Hello\nworld\n!\n\nBye\n",
        ", , O\n\" '' O\n",
        "\tO\na\tO\n",
        "a\tO\nb\tX\tO\n",
        "# id 7e\tdomain=en\na _ _ O\nb _ _ B-X\n",
    ],
)
def test_sniff_tells_columns(file, content):
    assert sniff(file(content)) == "conll"


def test_needed_tags_and_numbered_features_make_columns_of_any_values(file):
    path = file("the det\ncat noun\n\nit pron\n")
    expected = [(["the", "cat"], ["det", "noun"]), (["it"], ["pron"])]
    assert sniff(path) == "text"
    columns = {"tokens": 0, "tags": 1}
    assert told(path, columns) == told(path, {**columns, "pos": 1}, tagged=False) == expected
    text = file("Ada Lovelace slept\n")
    assert told(text, columns, tagged=False) == [(["Ada", "Lovelace", "slept"], None)]


def test_reading_streams(file):
    rows = read_rows(file("a\tO\n\n" * 10 + "broken\n"))
    assert next(rows).tokens == ["a"]


# Real corpora

COUNTS = {
    "wnut17/train.conll": ("conll", 3394, 62730),
    "wnut17/dev.conll": ("conll", 1009, 15733),
    "wnut17/test.conll": ("conll", 1287, 23394),
    "conll2000/dev.txt": ("conll", 1000, 23668),
    "conll2000/test.txt": ("conll", 2012, 47377),
    "ud-en-ewt/en_ewt-ud-train.conllu.gz": ("conllu", 12544, 204577),
    "ud-en-ewt/en_ewt-ud-dev.conllu": ("conllu", 2001, 25147),
    "ud-en-ewt/en_ewt-ud-test.conllu": ("conllu", 2077, 25094),
    "ud-fr-sequoia/fr_sequoia-ud-train.conllu": ("conllu", 2231, 50502),
    "ud-fr-sequoia/fr_sequoia-ud-dev.conllu": ("conllu", 412, 9999),
    "ud-fr-sequoia/fr_sequoia-ud-test.conllu": ("conllu", 456, 10044),
    "btc/dev.conll": ("conll", 1000, 16612),
}


@real
@pytest.mark.real
@pytest.mark.parametrize("name", COUNTS)
def test_real_corpora_have_their_sentences_and_tokens(name):
    path, dirt = Path(str(REAL), name), Dirt()
    rows = list(read_rows(path, dirt=dirt))
    assert (sniff(path), len(rows), sum(len(row.tokens) for row in rows)) == COUNTS[name]
    assert dirt.sentences() == []


@real
@pytest.mark.real
def test_real_lines_without_a_token_are_noted():
    notes = []
    for name, sentences, tokens in (("train", 6339 - 1, 98348 - 4), ("test", 2000, 35427 - 2)):
        dirt = Dirt()
        rows = list(read_rows(Path(str(REAL), "btc", f"{name}.conll"), dirt=dirt))
        assert (len(rows), sum(len(row.tokens) for row in rows)) == (sentences, tokens)
        notes += dirt.sentences()
    # Three and one are empty, one and one are a lone space; 104087 is all there is of a sentence.
    assert notes == [
        "train.conll: 4 lines with an empty token were skipped "
        "(lines 96124, 104085, 104087, 104094).",
        "test.conll: 2 lines with an empty token were skipped (lines 16301, 16302).",
    ]


@real
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("rotten-tomatoes/dev.tsv", "tsv", "tokens but 1 tags"),
        ("banking77/dev.jsonl", "jsonl", "the keys are text, label"),
        ("tatoeba-en-fr/train.tsv.gz", "text", "reads like raw text"),
        ("multi30k-en-de/val.de", "text", "reads like raw text"),
    ],
)
def test_real_corpora_for_other_tasks_are_refused_by_name(name, form, expected):
    path = Path(str(REAL), name)
    assert sniff(path) == form
    assert expected in failure(path)
    assert next(read_rows(path, tagged=False)).tags is None
