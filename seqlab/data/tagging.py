"""TaggingData: tokens and tags from any corpus, as batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from seqlab.data.base import Encoded, EncodedDataset, Ids
from seqlab.data.cache import digest_of
from seqlab.data.coded import Coded, cached_ids, coded
from seqlab.data.corpus import CorpusData
from seqlab.data.renaming import Renaming
from seqlab.data.sources import Reader, TaggedReader
from seqlab.data.tag_counts import TagCounts
from seqlab.data.tag_ids import STRANGE, TagIds
from seqlab.data.windows import cut_documents, has_long
from seqlab.errors import DataError, nearest
from seqlab.schemes import SchemeCounter
from seqlab.tags import UNKNOWN, convert, split_tag
from seqlab.vocabulary import Vocabulary

SchemeName = Literal["auto", "iob1", "iob2", "bioes", "bilou", "none"]
_PREFIXES = {"iob2": "BI", "bioes": "BIES"}
# Part of a key: raise it when other ids come of the same tags.
_VERSION = 1


class Sentence(NamedTuple):
    """The tags of a sentence, the line of each token, and the file they are lines of."""

    tags: list[str]
    lines: list[int]
    file: str


class TaggingData(CorpusData):
    """A corpus of tagged sentences for a :class:`seqlab.Tagger`.

    Args:
        path: see :class:`seqlab.data.corpus.CorpusData`, as for the options that are not named
            here. Its `columns` are ``tokens``, ``tags``, and feature columns of any other name: a
            column's number (negative: from the end) or its name, such as ``{tokens: 0, pos: 1,
            tags: 2}``. Documents are never cut inside a span.
        scheme: how the corpus writes spans; ``auto`` recognises it.
        tag_scheme: how the model sees them; ``bioes`` mostly scores better, ``iob2`` is smaller.
        rename: by a label of the corpus (or a whole tag) the name that is used for it, so that
            corpora that call one thing two names can be joined; null leaves its spans out.
        options: of :class:`seqlab.data.corpus.CorpusData`.
    """

    _own_columns = ("tokens", "tags", "lines")

    def __init__(
        self,
        path: str | None = None,
        *,
        scheme: SchemeName = "auto",
        tag_scheme: Literal["bioes", "iob2"] = "bioes",
        rename: dict[str, str | None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.scheme = scheme
        self.tag_scheme = tag_scheme
        self.rename = Renaming(rename)
        self._scheme = ""

    def _reader(self) -> Reader:
        return TaggedReader(self.columns or {})

    def _survey(self) -> None:
        if self.rename and self.vocabularies_from is None:
            self.rename.check(
                {tag for part in self.splits for tag in self._coded(part, "tags").values},
                self._corpus,
            )
        self._scheme = self._find_scheme()

    def _check_fit(self, target: Vocabulary) -> None:
        scheme = target.scheme
        if scheme in ("label", "labels"):
            raise DataError(
                f"the model in {self.vocabularies_from} labels whole texts, it does not tag: give "
                "it a corpus of labelled texts as seqlab.ClassificationData."
            )
        if "none" in (scheme, self._scheme) and scheme != self._scheme:
            raise DataError(
                f"the model tags in scheme {scheme}, and the tags of {self._corpus} are in scheme "
                f"{self._scheme}: say in data.columns where the tags stand that the model learnt."
            )

    def _tags(self, part: str) -> Coded:
        """Return the tags of a split under their new names, as numbers."""
        if "tags" not in self.splits[part].column_names:
            raise DataError(
                f"the {part} split of {self._corpus} has no tags: say where they stand in "
                "data.columns."
            )
        if not self.rename:
            return self._coded(part, "tags")
        key = (part, "renamed tags")
        if key not in self._columns:
            about = sorted(self.rename.names.items())
            self._columns[key] = coded(self.splits[part], "tags", self.rename.tags, about)
        return self._columns[key]

    def _sentences(self, part: str) -> Iterator[Sentence]:
        """Read the tags of a split one sentence after the other, as to find a place in it."""
        for file, rows in self._files(part):
            for piece in rows.select_columns(["tags", "lines"]).iter(batch_size=1000):
                for tags, lines in zip(piece["tags"], piece["lines"], strict=True):
                    yield Sentence(self.rename.tags(tags), lines, file)

    def _find_scheme(self) -> str:
        if self.scheme != "auto":
            return self.scheme
        counter = SchemeCounter()
        for part in self.splits:
            tags = self._tags(part)
            counts = TagCounts(counter, tags.values, partial(self._place, part))
            counts.add(tags.ids, tags.offsets)
        found = counter.result()
        if found.repaired:
            self.note(
                f"{found.repaired} tags do not fit {found.name} and are read as conlleval reads "
                f"them (the first at {', '.join(found.examples)})."
            )
        return found.name

    def _place(self, part: str, token: int) -> str:
        """Name the place of a token, as ``file:line``."""
        offsets = self._tags(part).offsets
        row = int(np.searchsorted(offsets, token, side="right")) - 1
        line = self.splits[part][row]["lines"][token - int(offsets[row])]
        return f"{self._file_of(part, row)}:{line}"

    def _first(self, wanted: Callable[[str], bool]) -> str:
        """Find the first tag of the training split that is wanted, as ``file:line``."""
        for tags, lines, file in self._sentences("train"):
            for tag, line in zip(tags, lines, strict=True):
                if wanted(tag):
                    return f"{file}:{line}"
        return self._file("train")

    @property
    def _model_scheme(self) -> str:
        return "none" if self._scheme == "none" else self.tag_scheme

    def _target_vocabulary(self) -> Vocabulary:
        tags = self._tags("train").by_value()
        labels: Counter[str] = Counter()
        tags.pop(UNKNOWN, None)
        if self._scheme == "none":
            return Vocabulary(self._chosen(tags, self._place_of), written="none")
        for tag, n in tags.items():
            labels[self._label(tag)] += n
        labels.pop("", None)
        scheme = self._model_scheme
        chosen = self._chosen(labels, self._place_of)
        names = [f"{p}-{label}" for label in chosen for p in _PREFIXES[scheme]]
        return Vocabulary(["O", *names], scheme=scheme, written=self._scheme)

    def _label(self, tag: str) -> str:
        if self._scheme == "none":
            return tag
        try:
            return split_tag(tag)[1]
        except DataError as error:  # only where the recipe names the scheme
            place = self._first(lambda other: other == tag)
            raise DataError(f"{place}: {error} Mend it, or set data.scheme to none.") from error

    def _place_of(self, label: str) -> str:
        return self._first(lambda tag: self._label(tag) == label)

    def _with_target(self, split: str, encoded: Encoded, scored: bool) -> EncodedDataset:
        assert self._forms is not None
        if not scored:
            encoded.target = self._target_ids(split)
            if has_long(encoded, self.max_length):
                long = cut_documents(encoded, self._opening_tags(), self.max_length)
                which = "" if self.streaming else f"{long} "
                self.note(
                    f"{which}training documents of more than {self.max_length} tokens were cut "
                    "into pieces between spans; nothing was left out (data.max_length)."
                )
            hidden = self._hidden(split)
            return EncodedDataset(encoded, self._forms, None, hidden, self.seed)
        rows = self.splits[split]
        column = rows.data.column("tags")
        scheme, target = self._scheme, self._vocabularies["target"].scheme

        def gold(row: int) -> list[str]:
            try:
                return convert(self.rename.tags(column[row].as_py()), scheme, target)
            except DataError as error:  # only where the recipe names the scheme
                place = f"{self._file_of(split, row)}:{rows[row]['lines'][0]}"
                raise DataError(f"{place}: {error}") from error

        return EncodedDataset(encoded, self._forms, gold)

    def _target_ids(self, split: str) -> Ids:
        """Return what the tags of a split are to the model, -1 where nobody knows."""
        tags, vocab = self._tags(split), self._vocabularies["target"]
        try:
            made = TagIds(tags.values, vocab)
        except DataError:  # only where the recipe names the scheme
            self._check_tags(split)
            raise
        if not made.spans:
            if (made.plain == STRANGE).any():
                self._check_tags(split)
            return tags.ids.standing_for(made.plain)

        def parts() -> Iterator[np.ndarray]:
            for part in made.parts(tags.ids, tags.offsets):
                if (part == STRANGE).any():
                    self._check_tags(split)
                yield part

        about = ("tags", _VERSION, tags.key, vocab.scheme, vocab.tokens)
        return cached_ids(tags.key and digest_of([], *about), "target.ids", parts)

    def _check_tags(self, split: str) -> None:
        """Refuse the first tag that the model does not know, with its place."""
        vocab = self._vocabularies["target"]
        for tags, lines, file in self._sentences(split):
            written = convert(tags, self._scheme, vocab.scheme)
            for tag, line, new in zip(tags, lines, written, strict=True):
                if new != UNKNOWN and new not in vocab:
                    raise DataError(
                        f"{file}:{line}: the model does not know the tag "
                        f"{tag!r}{self._cure}.{nearest(new, vocab.tokens)}"
                    )

    def _opening_tags(self) -> np.ndarray:
        """Say for every tag whether a document may be cut before it; the last entry is for -1."""
        vocab = self._vocabularies["target"]
        return np.array([vocab.scheme == "none" or t[0] in "OBS" for t in vocab.tokens] + [True])
