"""Other names for tags, as where two corpora call one thing two names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from seqlab.errors import RecipeError, nearest
from seqlab.tags import OUTSIDE, PREFIXES


class Renaming:
    """Gives tags other names.

    Args:
        names: by a label of spans or a whole tag what it is to be called; None makes tokens of
            spans with the label ``O``.

    Attributes:
        names: as given.

    Raises:
        RecipeError: a new name is empty, or a label is to be called ``O`` (which None says).
    """

    def __init__(self, names: Mapping[str, str | None] | None = None) -> None:
        self.names = dict(names or {})
        for old, new in self.names.items():
            if new == OUTSIDE or new == "":
                raise RecipeError(
                    f"data.rename.{old} is {new!r}, which is no label: give it a name, or null to "
                    "have its spans left out."
                )

    def __bool__(self) -> bool:
        return bool(self.names)

    def tags(self, tags: Sequence[str]) -> list[str]:
        """Rename the tags of a sentence; spans that touch and now share a label stay two.

        Example:
            >>> names = Renaming({"person": "PER", "group": "ORG", "firm": "ORG", "product": None})
            >>> names.tags(["B-person", "O", "B-product", "I-product"])
            ['B-PER', 'O', 'O', 'O']
            >>> names.tags(["I-group", "I-firm"])
            ['I-ORG', 'B-ORG']
        """
        if not self.names:
            return list(tags)
        renamed: list[str] = []
        before: tuple[str, str | None] = ("", None)
        for tag in tags:
            prefix, label = _parts(tag)
            new = self.names.get(tag, self.names.get(label, label))
            if new is None:
                renamed.append(OUTSIDE)
            elif not prefix or tag in self.names:
                renamed.append(new)
            else:
                touches = prefix == "I" and before[1] == new and before[0] != label
                renamed.append(f"{'B' if touches else prefix}-{new}")
            before = (label, new) if prefix else ("", None)
        return renamed

    def check(self, tags: Iterable[str], corpus: str) -> None:
        """Refuse names that no tag has, and to leave out what is no span.

        Args:
            tags: all that the corpus has.
            corpus: what it is called.

        Raises:
            RecipeError: as said.
        """
        tags = list(tags)
        labels = {label: bool(prefix) for prefix, label in map(_parts, tags)}
        labels = dict.fromkeys(tags, False) | labels
        for old, new in self.names.items():
            if old not in labels:
                raise RecipeError(
                    f"data.rename: no tag of {corpus} has the label {old!r}.{nearest(old, labels)}"
                )
            if new is None and not labels[old]:
                raise RecipeError(
                    f"data.rename.{old} is null, which leaves out spans, and {old} is a tag of "
                    "single tokens: give it another name."
                )


def _parts(tag: str) -> tuple[str, str]:
    """Split a tag into its prefix, empty where it is a bare name, and its label."""
    return (tag[0], tag[2:]) if tag[1:2] == "-" and tag[0] in PREFIXES else ("", tag)
