"""Text in, translations out: the pipeline of translators.

A :class:`TranslationPipeline` works as :class:`seqlab.pipeline.Pipeline` does: it takes in some
batches ahead, puts texts of like length together, and gives the results back in the order of the
texts, in constant memory. No translation depends on what else was in its batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, overload

import torch

from seqlab.errors import UsageError
from seqlab.networks.base import kind_of
from seqlab.networks.search import searched
from seqlab.networks.translator import TranslatorNetwork
from seqlab.nn.precision import Precision, check_precision, using
from seqlab.nn.search import Constraints, Hypothesis, SearchOptions
from seqlab.pairs import PairBatch
from seqlab.pipeline import device_named
from seqlab.subwords import SubwordVocabulary
from seqlab.translated import Candidate, Translated, replaced
from seqlab.wishes import Wishes, says, spelling_in, written

__all__ = ["Job", "TranslationPipeline", "Wishes"]

_BATCHES_AHEAD = 16  # how many batches of tokens are read before the first of them is answered
_WISHES_KEPT = 256  # wishes whose spelling is remembered
_HALF = re.compile("[\ud800-\udfff]")
Input = str | tuple[str, Wishes]


@dataclass(frozen=True, slots=True)
class Job:
    """A text to translate.

    Args:
        text: as given.
        ids: of its pieces; none where there is nothing to translate.
        number: its place in the input, from 0, on which samples of it depend.
        wishes: what is asked of its translations.
    """

    text: str
    ids: list[int]
    number: int = 0
    wishes: Wishes = Wishes()


class TranslationPipeline:
    """A translator ready to read text. Several threads may use one pipeline at once.

    Args:
        model: a trained translator; or several with the same vocabularies, whose probabilities are
            averaged. They are moved to the device and set to evaluation mode.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        tokens_per_batch: how many tokens of the source, padding included, times hypotheses go
            through the model at once; a longer text is a batch of its own.
        precision: ``exact`` (float32), or ``fast``: matrix products in bfloat16 (see
            :mod:`seqlab.nn.precision`); then translations may also depend a little on the batch.
        options: how to search; as the model was told, unless given.
        alignments: say how much each piece looked at each of the source.
        replace_unknown: put in the place of an unknown piece what it looked at most in the source.

    Attributes:
        model: the first of the models.
        models: all of them.
        device: the device they are on.
        options: as given or of the model; may be changed between calls.
        precision: as given; likewise.
        alignments: likewise.
        replace_unknown: likewise.

    Raises:
        SeqlabError: the device is not there, the precision is unknown, or the models cannot work
            together.
        TypeError: a model is no translator.
    """

    def __init__(
        self,
        model: TranslatorNetwork | Sequence[TranslatorNetwork],
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        precision: Precision = "exact",
        options: SearchOptions | None = None,
        alignments: bool = False,
        replace_unknown: bool = False,
    ) -> None:
        check_precision(precision, "precision")
        if tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, not {tokens_per_batch}.")
        models = [model] if isinstance(model, torch.nn.Module) else list(model)
        _check_models(models)
        self.device = device_named(device)
        self.models = [one.to(self.device).eval() for one in models]
        self.model = self.models[0]
        self.tokens_per_batch = tokens_per_batch
        self.precision: Precision = precision
        self.options = options or self.model.searching
        self.alignments = alignments
        self.replace_unknown = replace_unknown
        self._spelt = lru_cache(_WISHES_KEPT)(self._spell)

    def check_languages(self, source: str | None = None, target: str | None = None) -> None:
        """Refuse languages that are not the model's; None asks nothing.

        Raises:
            UsageError: the model translates from or to another language, or does not say which.
        """
        vocabularies = (self.model.source_vocab, self.model.target_vocab)
        known = [vocabulary.language for vocabulary in vocabularies]
        for asked, language in zip((source, target), known, strict=True):
            if asked is not None and asked != language:
                if None in known:
                    raise UsageError(
                        f"the model does not say what languages it translates, so {asked} cannot "
                        "be compared: leave the languages out."
                    )
                raise UsageError(
                    f"the model translates from {known[0]} to {known[1]}, and {asked} is asked "
                    "for: take a model of these languages."
                )

    @overload
    def __call__(self, inputs: str, wishes: Wishes | None = None) -> Translated: ...

    @overload
    def __call__(
        self, inputs: list[Any] | tuple[Any, ...], wishes: Wishes | None = None
    ) -> list[Translated]: ...

    def __call__(
        self, inputs: str | list[Any] | tuple[Any, ...], wishes: Wishes | None = None
    ) -> Translated | list[Translated]:
        """Translate one text, or several.

        Args:
            inputs: a text; or a list of texts, of which each may be a pair of the text and wishes
                of its own.
            wishes: what the translations of all of them must and must not say.

        Returns:
            one result for a text, a list of as many results for a list.

        Raises:
            TypeError: something else was given.
            UsageError: the wishes contradict each other or the search.
        """
        if isinstance(inputs, str):
            return next(self.stream([inputs], wishes))
        if not isinstance(inputs, list | tuple):
            raise TypeError(
                f"a translation pipeline takes a text or a list of texts, not "
                f"{type(inputs).__name__}; for a stream of texts use `stream`."
            )
        return list(self.stream(inputs, wishes))

    def stream(
        self, inputs: Iterable[Input], wishes: Wishes | None = None, first: int = 0
    ) -> Iterator[Translated]:
        """Translate any number of texts in constant memory.

        Args:
            inputs: texts, or pairs of a text and its wishes; they are taken in some batches ahead
                of what is given back.
            wishes: of all of them.
            first: number of the first text, from 0: samples depend on it, and errors name it.

        Yields:
            the results, in the order of the texts.

        Raises:
            TypeError: an input is no text.
            UsageError: see :meth:`__call__`.
        """
        for chunk in self._chunks(inputs, wishes or Wishes(), first):
            yield from self._answers(chunk)

    def _chunks(self, inputs: Iterable[Input], wishes: Wishes, first: int) -> Iterator[list[Job]]:
        self._spelt(wishes)  # what is wrong with these is wrong with every text
        chunk: list[Job] = []
        room = budget = _BATCHES_AHEAD * max(1, self.tokens_per_batch // self._width)
        for number, item in enumerate(inputs, first):
            job = self._job(item, number, wishes)
            chunk.append(job)
            room -= max(1, len(job.ids))
            if room <= 0:
                yield chunk
                chunk, room = [], budget
        if chunk:
            yield chunk

    def _job(self, item: Input, number: int, wishes: Wishes) -> Job:
        """Read one input; what is wrong with its wishes is said with its place."""
        text, own = item if isinstance(item, tuple) and len(item) == 2 else (item, Wishes())
        if not isinstance(text, str) or not isinstance(own, Wishes):
            raise TypeError(
                f"input {number + 1} is of type {type(item).__name__}: a translation pipeline "
                "takes texts, or pairs of a text and its Wishes."
            )
        [ids] = self.model.source_vocab.encode([_whole(text)])
        if not own.any:
            return Job(text, ids, number, wishes)
        try:
            own = wishes.joined(own)
            self._spelt(own)
        except UsageError as error:
            raise UsageError(f"text {number + 1}: {error}") from error
        return Job(text, ids, number, own)

    def _spell(self, wishes: Wishes) -> Constraints:
        return wishes.constraints(self.model.target_vocab)

    @property
    def _width(self) -> int:
        """Hypotheses of one text that are in the model at once."""
        return self.options.beam if self.options.method == "beam" else self.options.n_best

    def _answers(self, chunk: Sequence[Job]) -> list[Translated]:
        order = sorted(range(len(chunk)), key=lambda row: len(chunk[row].ids))
        ranked = [chunk[row] for row in order]
        found = [self._nothing(job) for job in ranked if not job.ids]
        for part in self._plan(ranked, len(found)):
            found += self.translate(ranked[part])
        results = dict(zip(order, found, strict=True))
        return [results[row] for row in range(len(chunk))]

    def _plan(self, jobs: Sequence[Job], start: int) -> Iterator[slice]:
        """Cut texts that are ordered by length into batches, from one of them on."""
        for row in range(start + 1, len(jobs)):
            tokens = (row + 1 - start) * len(jobs[row].ids)
            if tokens * self._width > self.tokens_per_batch:
                yield slice(start, row)
                start = row
        if start < len(jobs):
            yield slice(start, len(jobs))

    def _nothing(self, job: Job) -> Translated:
        """Answer a blank text, of which no model can say anything."""
        missing = list(job.wishes.require)
        none = Candidate("", 0.0, 0.0, [], [], missing, torch.zeros(0, 0))
        hypothesis = none if self.alignments else replace(none, alignment=None)
        return Translated(job.text, [hypothesis], [], [] if self.alignments else None)

    def jobs(self, inputs: Iterable[Input], wishes: Wishes | None = None) -> list[Job]:
        """Prepare inputs of :meth:`stream` for :meth:`translate`."""
        return [self._job(item, number, wishes or Wishes()) for number, item in enumerate(inputs)]

    def translate(
        self, jobs: Sequence[Job], options: SearchOptions | None = None
    ) -> list[Translated]:
        """Translate texts as one batch, in this order.

        Args:
            jobs: none of them blank.
            options: how to search, in place of those of the pipeline.
        """
        options = options or self.options
        looks = self.alignments or self.replace_unknown
        options = replace(options, keep_attention=looks)
        found = self._searched(jobs, options)
        vocabulary = self.model.source_vocab
        offsets: Sequence[list[tuple[int, int]] | None] = [None] * len(jobs)
        if looks:
            offsets = vocabulary.offsets([_whole(job.text) for job in jobs])
        return [
            Translated(
                job.text,
                [self._candidate(job, one, places) for one in some],
                vocabulary.pieces(job.ids),
                places,
                job.ids.count(SubwordVocabulary.UNKNOWN),
            )
            for job, some, places in zip(jobs, found, offsets, strict=True)
        ]

    def _searched(self, jobs: Sequence[Job], options: SearchOptions) -> list[list[Hypothesis]]:
        """Search, and again with more spellings banned where something banned was said."""
        found: list[list[Hypothesis]] = [[] for _ in jobs]
        constraints = [self._spelt(job.wishes) if job.wishes.any else None for job in jobs]
        left = list(range(len(jobs)))
        while left:
            with using(self.precision, self.device):
                outputs = searched(
                    self.models,
                    self._batch([jobs[row] for row in left]),
                    options,
                    [constraints[row] for row in left],
                    [jobs[row].number for row in left],
                )
            again = []
            for row, some in zip(left, outputs, strict=True):
                found[row], wish = some, constraints[row]
                if wish is not None and (more := self._said(jobs[row].wishes, wish, some)):
                    constraints[row] = replace(wish, banned=[*wish.banned, *more])
                    again.append(row)
            left = again
        return found

    def _said(
        self, wishes: Wishes, constraints: Constraints, outputs: Sequence[Hypothesis]
    ) -> list[list[int]]:
        """List the pieces by which outputs say what is banned."""
        asked = [*constraints.required, constraints.prefix]
        vocabulary = self.model.target_vocab
        found = [
            spelling_in(output.ids, phrase, vocabulary, asked)
            for output in outputs
            for phrase in wishes.ban
        ]
        new = {tuple(ids) for ids in found if ids} - {tuple(ids) for ids in constraints.banned}
        return [list(ids) for ids in sorted(new)]

    def _batch(self, jobs: Sequence[Job]) -> PairBatch:
        """Put sources together, each with its end, on the device of the model."""
        lengths = torch.tensor([len(job.ids) + 1 for job in jobs])
        source = torch.full((len(jobs), int(lengths.max())), SubwordVocabulary.PADDING)
        for row, job in zip(source, jobs, strict=True):
            row[: len(job.ids) + 1] = torch.tensor([*job.ids, SubwordVocabulary.END])
        return PairBatch(source.to(self.device), lengths.to(self.device))

    def _candidate(
        self, job: Job, found: Hypothesis, places: Sequence[tuple[int, int]] | None
    ) -> Candidate:
        vocabulary = self.model.target_vocab
        attention = None if found.attention is None else found.attention.cpu()
        pieces = vocabulary.pieces(found.ids)
        [text] = vocabulary.decode([found.ids])
        unknown = SubwordVocabulary.UNKNOWN in found.ids
        if self.replace_unknown and unknown and attention is not None and places:
            new, whole = replaced(found.ids, pieces, attention, _whole(job.text), places)
            if not any(says(whole, written(phrase, vocabulary)) for phrase in job.wishes.ban):
                pieces, text = new, whole
        return Candidate(
            text,
            found.score,
            found.log_probability,
            found.ids,
            pieces,
            job.wishes.missing(text, vocabulary),
            attention if self.alignments else None,
        )


def _whole(text: str) -> str:
    """Put the replacement character in the place of each half of a character."""
    return _HALF.sub("\ufffd", text)


def _check_models(models: Sequence[object]) -> None:
    if not models:
        raise UsageError("there is no model to translate with: give one translator or several.")
    for model in models:
        if not isinstance(model, TranslatorNetwork):
            raise TypeError(
                f"a translation pipeline serves Translators, and this is a {kind_of(model)}: "
                "use Pipeline for a Tagger or a Classifier."
            )
    for model in models[1:]:
        for side in ("source_vocab", "target_vocab"):
            if getattr(model, side) != getattr(models[0], side):
                raise UsageError(
                    "models that translate together need the same vocabularies, and theirs differ: "
                    "train them with data.vocabularies_from of one of them."
                )
