"""What ``seqlab predict`` reads, file or stream, in any format, and what a pipeline says of it."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from seqlab.data.formats import Dirt, read_rows, sniff
from seqlab.data.lines import lines_of
from seqlab.data.rows import Row
from seqlab.data.unlabelled import holds_lines, read_unlabelled
from seqlab.errors import DataError
from seqlab.sentence import Sentence

_HEAD = 1 << 18  # bytes of a stream that are looked at to tell its format
_PIECE = 1 << 16  # bytes that are taken from a stream at once, at most
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Reader:
    """Reads files and streams for a pipeline.

    Args:
        answer: answers any number of sentences, the first of which has this number, from 0.
        columns: which column holds the tokens and each feature, or the text.
        lines: whether each line is a text, whatever it looks like.
        dirt: where what is skipped is noted.
        whole: whether the pipeline answers whole texts, and files are those of labelled texts.
    """

    answer: Callable[[Iterable[Any], int], Iterator[Any]]
    columns: Mapping[str, int | str]
    lines: bool
    dirt: Dirt
    whole: bool = False

    def of_texts(self, texts: Sequence[str]) -> Iterator[Any]:
        """Answer texts."""
        return self.answer(map(self.of_line, texts), 0)

    def of_line(self, line: str) -> Any:
        """Make what is answered of a line of raw text."""
        return Sentence.of(line)

    def of_file(self, name: str) -> Iterator[Any]:
        """Answer what stands in a file, or comes through standard input.

        Args:
            name: path of the file; ``-`` for standard input.

        Yields:
            the results.

        Raises:
            DataError: it cannot be read, or holds nothing that can be answered.
        """
        if name == "-":
            stream = cast(io.BufferedReader, sys.stdin.buffer)
            at_once = self.lines or sys.stdin.isatty()
            yield from self._of_stream(stream, "standard input", at_once)
        elif not os.path.isfile(name):  # a pipe, which can be read only once
            with open(name, "rb") as stream:
                yield from self._of_stream(stream, name, self.lines)
        else:
            yield from self.answer(self.items(Path(name)), 0)

    def is_lines(self, path: Path) -> bool:
        """Say whether each line of a file is a text."""
        if self.lines or self.columns:
            return self.lines
        return holds_lines(path) if self.whole else sniff(path) == "text"

    def items(self, path: Path) -> Iterator[Any]:
        """Read what is answered from a file."""
        if self.is_lines(path):
            for _, line in lines_of(path):
                yield self.of_line(line)
            return
        for row in self._rows(path):
            yield Sentence(row.tokens, row.features, row.text, row.offsets)

    def _rows(self, path: Path) -> Iterator[Row]:
        if self.whole:
            return read_unlabelled(path, self.columns, self.dirt)
        return read_rows(path, self.columns, dirt=self.dirt, tagged=False)

    def _of_stream(self, stream: io.BufferedReader, name: str, at_once: bool) -> Iterator[Any]:
        """Answer what is piped in: raw text as it comes, the rest by way of a temporary file."""
        if at_once:
            yield from self._of_lines(b"", stream, name)
            return
        head = stream.read(_HEAD)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / Path(name).name.replace(" ", "-")
            try:
                # Of what is longer only whole lines are judged; packed data cannot be cut anywhere.
                whole = len(head) if len(head) < _HEAD else head.rfind(b"\n") + 1 or len(head)
                copy.write_bytes(head[:whole])
                if not head.startswith(_GZIP) and self.is_lines(copy):
                    yield from self._of_lines(head, stream, name)
                    return
                with copy.open("ab") as file:
                    file.write(head[whole:])
                    shutil.copyfileobj(stream, file)
                yield from self.answer(self.items(copy), 0)
            except DataError as error:
                raise DataError(str(error).replace(str(copy), name)) from error

    def _of_lines(self, head: bytes, stream: io.BufferedReader, name: str) -> Iterator[Any]:
        number = 0
        for lines in _whole_lines(head, stream):
            items = []
            for line in lines:
                number += 1
                line = line.removeprefix(_BOM) if number == 1 else line
                try:
                    items.append(self.of_line(line.removesuffix(b"\r").decode("utf-8")))
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{name}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1} of "
                        "the line); convert it, for example with `iconv -f LATIN1 -t UTF-8`."
                    ) from error
            yield from self.answer(items, number - len(items))


def _whole_lines(head: bytes, stream: io.BufferedReader) -> Iterator[list[bytes]]:
    """Give lines as they come, many at once where they come faster than they are answered."""
    begun: list[bytes] = []
    piece = head or stream.read1(_PIECE)
    while piece:
        first, *others = piece.split(b"\n")
        begun.append(first)
        if others:
            last = others.pop()
            yield [b"".join(begun), *others]
            begun = [last]
        piece = stream.read1(_PIECE)
    if rest := b"".join(begun):
        yield [rest]
