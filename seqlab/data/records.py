"""Files with one object a sentence, JSONL and parquet: tokens with tags, or text with spans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.data.lines import lines_of
from seqlab.data.rows import Columns, Dirt, Place, Row
from seqlab.data.texts import spans_of_values, text_row
from seqlab.errors import DataError, nearest

Record = Mapping[str, Any]
Numbered = Iterable[tuple[int, Record]]
Names = dict[str, list[str]]  # of classes, by key

TOKEN_KEYS = ("tokens", "words")
TEXT_KEYS = ("text", "sentence")
TAG_KEYS = ("tags", "ner_tags", "labels", "pos_tags", "chunk_tags", "ner", "pos", "upos", "xpos")
SPAN_KEYS = ("spans", "entities", "labels", "label")
_BATCH = 1000
_MAIN = ("tokens", "tags")


class Keys(NamedTuple):
    """Which keys of a record hold what; `raw` where the source is text, and the target spans."""

    source: str
    target: str | None
    raw: bool
    features: dict[str, str]

    def all(self) -> list[str]:
        """Name every key that is read."""
        target = [] if self.target is None else [self.target]
        return list(dict.fromkeys([self.source, *target, *self.features.values()]))


def read_jsonl(path: Path, columns: Columns, dirt: Dirt, tagged: bool) -> Iterator[Row]:
    """Read JSON Lines: one object a line, with lists of tokens and tags, or a text and its spans.

    Spans are objects with ``start``, ``end`` and ``label``, or such triples; characters, end
    exclusive. The text is cut into words and at the borders of spans; the tags are IOB2.

    Args:
        path: the file.
        columns: keys for ``tokens`` (else ``tokens`` or ``words``, or the ``text``), ``tags`` (else
            one of `TAG_KEYS`, or of `SPAN_KEYS` for a text) and features.
        dirt: where empty tokens, and records without any, are noted.
        tagged: whether every record needs tags.

    Yields:
        The records, in order.

    Raises:
        DataError: a line is no object, lists differ in length, tags are no strings, or spans
            overlap or lie outside the text; with the line.
    """
    place = Place(str(path))
    yield from rows_of_records(objects_of(path, place), columns, place, dirt, tagged)


def objects_of(path: Path, place: Place) -> Iterator[tuple[int, Record]]:
    """Read the objects of JSON Lines.

    Args:
        path: the file.
        place: what errors call it.

    Yields:
        The number of a line and the object in it.

    Raises:
        DataError: a line is no object, with the line.
    """
    for number, line in lines_of(path):
        if not line or line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error)
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
            raise place.error(
                number, f"not JSON ({reason}); write one object a line, as `jq -c .` does."
            ) from error
        if not isinstance(record, dict):
            raise place.error(
                number,
                "not a JSON object; write one object a line, as `jq -c '.[]'` does of a list.",
            )
        if "\\u" in line:  # half a surrogate pair may be written so, but is no character
            try:
                json.dumps(record, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise place.error(number, f"half a surrogate pair ({error.reason}).") from error
        yield number, record


def read_parquet(path: Path, columns: Columns, dirt: Dirt, tagged: bool) -> Iterator[Row]:
    """Read parquet: a sentence a row, with what `read_jsonl` takes as columns.

    Tags may be numbers where the schema holds their names, as the library datasets writes them.

    Args:
        path: the file.
        columns: as in `read_jsonl`.
        dirt: as in `read_jsonl`.
        tagged: as in `read_jsonl`.

    Yields:
        The rows; their lines are numbers of rows, from 1.

    Raises:
        DataError: as in `read_jsonl`, or the file is damaged.
    """
    place = Place(str(path), ", row ")
    names: dict[str, list[str]] = {}
    records = parquet_records(
        path, lambda record: choose_keys(record, columns, tagged, place, 1).all(), names
    )
    yield from rows_of_records(records, columns, place, dirt, tagged, names)


def parquet_records(
    path: Path, choose: Callable[[Record], list[str]], names: dict[str, list[str]]
) -> Iterator[tuple[int, Record]]:
    """Read the rows of a parquet file as records.

    Args:
        path: the file.
        choose: names the keys to read, given the first record.
        names: is filled with the names of classes, by key, before the first record comes.

    Yields:
        The number of a row, from 1, and its record.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names |= class_names(file.schema_arrow.metadata or {})
            sample = next(file.iter_batches(1), None)
            if sample is None or not sample.num_rows:
                return
            batches = file.iter_batches(_BATCH, columns=choose(sample.to_pylist()[0]))
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), 1)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole parquet file ({error}).") from error


def class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Take the names of class labels from a schema that the library datasets wrote.

    Args:
        metadata: the schema's metadata.

    Returns:
        By column, the names in the order of their numbers.
    """
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    names = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            names[column] = inner["names"]
    return names


def rows_of_records(
    records: Iterable[tuple[int, Record]],
    columns: Columns,
    place: Place,
    dirt: Dirt,
    tagged: bool,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Row]:
    """Turn records into rows; the first decides which keys are read.

    Args:
        records: number and content of each.
        columns: as in `read_jsonl`.
        place: where they come from.
        dirt: where empty tokens, and records without any, are noted.
        tagged: whether every record needs tags.
        names: for keys with numbers in place of names, the names.

    Yields:
        The rows.

    Raises:
        DataError: as in `read_jsonl`.
    """
    file = Path(place.file).name
    whole = complete_records(
        records, lambda record, at: choose_keys(record, columns, tagged, place, at), place
    )
    for number, record, keys in whole:
        row = row_of_record(record, keys, place, number, names or {})
        row = row.without_empty(dirt, file)
        if row.tokens:
            yield row
        else:
            dirt.note("without any token", file, number)


def complete_records(
    records: Iterable[tuple[int, Record]],
    choose: Callable[[Record, int], Keys],
    place: Place,
    remedy: str = "which the records before have; give it to all.",
) -> Iterator[tuple[int, Record, Keys]]:
    """Pass records on with the keys to read, which the first record decides.

    Args:
        records: number and content of each.
        choose: chooses the keys, given the first record and its number.
        place: where they come from.
        remedy: what is said of a record that lacks a key.

    Yields:
        Number, content and keys of each.

    Raises:
        DataError: a record lacks a key or has null there.
    """
    keys: Keys | None = None
    for number, record in records:
        keys = keys or choose(record, number)
        missing = [key for key in keys.all() if record.get(key) is None]
        if missing:
            raise place.error(number, f"no {missing[0]!r}, {remedy}")
        yield number, record, keys


def choose_keys(record: Record, columns: Columns, tagged: bool, place: Place, number: int) -> Keys:
    """Choose the keys to read by what a record holds.

    Args:
        record: the first record.
        columns: the keys that were asked for.
        tagged: whether there must be tags.
        place: for errors.
        number: of the record, for errors.

    Returns:
        The keys: tokens with tags before text with spans, before either alone.

    Raises:
        DataError: nothing fits, several keys could be the tags, or a key asked for is not there.
    """
    asked = {
        role: asked_key(record, key, role, place, number)
        for role, key in columns.items()
        if tagged or role != "tags" or key in record
    }
    features = {role: key for role, key in asked.items() if role not in _MAIN}
    found: list[Keys] = []
    for raw, sources, kind, targets, inner in (
        (False, TOKEN_KEYS, list, TAG_KEYS, (str, int)),
        (True, TEXT_KEYS, str, SPAN_KEYS, (dict, list)),
    ):
        known = [asked["tokens"]] if "tokens" in asked else [k for k in sources if k in record]
        for source in known:
            if isinstance(record[source], kind) and (raw or is_list_of(record[source], (str,))):
                free = [key for key in targets if key not in (source, *features.values())]
                fitting = [key for key in free if is_list_of(record.get(key), inner)]
                target = asked.get("tags") or _only(fitting, targets[0], tagged, place, number)
                found.append(Keys(source, target, raw, features))
    for keys in found:
        if keys.target is not None:
            return keys
    if found and not tagged:
        return found[0]
    needed = "tokens with tags (two lists), or a text with spans" if tagged else "tokens or text"
    raise place.error(
        number,
        f"no {needed}; the keys are {', '.join(record)}. Name those to read in data.columns, such "
        "as {tokens: words, tags: ner}.",
    )


def asked_key(record: Record, key: int | str, role: str, place: Place, number: int) -> str:
    """Find a key that was asked for.

    Args:
        record: the first record.
        key: what was asked for.
        role: what the key is for, for the error.
        place: where the record comes from, for the error.
        number: of the record, for the error.

    Returns:
        The key.

    Raises:
        DataError: there is no such key; with those that there are.
    """
    if isinstance(key, str) and key in record:
        return key
    near = nearest(key, record) if isinstance(key, str) else ""
    raise place.error(
        number, f"no key {key!r} for the {role}; the keys are {', '.join(record)}.{near}"
    )


def is_list_of(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value is a list of such values alone."""
    return isinstance(value, list) and all(isinstance(item, kinds) for item in value)


def _only(fitting: list[str], first: str, tagged: bool, place: Place, number: int) -> str | None:
    """Take the tags' key; of several none is better, unless one has the plain name."""
    if len(fitting) > 1 and first not in fitting and tagged:
        raise place.error(
            number,
            f"{' and '.join(fitting)} could all be the tags; say which with data.columns.tags.",
        )
    if first in fitting:
        return first
    return fitting[0] if len(fitting) == 1 else None


def row_of_record(
    record: Record, keys: Keys, place: Place, number: int, names: Mapping[str, Sequence[str]]
) -> Row:
    """Make a row of a record; `names` are those of classes, by key.

    Raises:
        DataError: as in `read_jsonl`.
    """
    if not keys.raw:
        return _token_row(record, keys, place, number, names)
    if keys.features:
        raise place.error(
            number,
            f"raw text has no {next(iter(keys.features))} for its tokens; give lists instead.",
        )
    text = record[keys.source]
    if not isinstance(text, str):
        raise place.error(number, f"{keys.source} is no text.")
    spans = None if keys.target is None else spans_of_values(record[keys.target], place, number)
    return text_row(text, spans, place, number)


def _token_row(
    record: Record, keys: Keys, place: Place, number: int, names: Mapping[str, Sequence[str]]
) -> Row:
    """Make a row of lists that run along the tokens."""
    tokens = _strings(record, keys.source, place, number, names)

    def along(key: str) -> list[str]:
        values = _strings(record, key, place, number, names)
        if len(values) != len(tokens):
            raise place.error(
                number,
                f"{len(tokens)} {keys.source} but {len(values)} {key}; give one for every token.",
            )
        return values

    tags = None if keys.target is None else along(keys.target)
    features = {role: along(key) for role, key in keys.features.items()}
    return Row(tokens, tags, [number] * len(tokens), features)


def _strings(
    record: Record, key: str, place: Place, number: int, names: Mapping[str, Sequence[str]]
) -> list[str]:
    values = record[key]
    if is_list_of(values, (str,)):
        return list(values)
    known = names.get(key)
    if known and is_list_of(values, (int,)) and all(0 <= value < len(known) for value in values):
        return [known[value] for value in values]
    raise place.error(
        number,
        f"{key} is no list of strings; write tokens and the names of tags, such as "
        '["Ada", "slept"] and ["B-PER", "O"].',
    )
