"""Tokenizers learnt from texts: merged bytes, merged characters, likely pieces, or whole words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from seqlab.errors import DataError, RecipeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TokenizerKind = Literal["bpe", "wordpiece", "unigram", "words"]
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
_UNKNOWN = SPECIAL[1]
_SPACE = r"[\s\p{Cc}]+"
# A word, an ideograph or a mark, with the blank before it.
_WORDS = r" ?(?:\p{Han}|[\w&&[^\p{Han}]]+|[^\w\s])"
# What stands between blanks. Angle brackets are apart, lest "<s>" in a text become a special token.
_CHUNKS = r" ?(?:[^ <>]+|[<>])| "
_LONGEST_WORD = 1000  # characters; a longer one is unknown to wordpiece, which tries all its parts


def train_tokenizer(
    texts: Iterator[str], kind: TokenizerKind, size: int, lowercase: bool = False
) -> str:
    """Learn a tokenizer from texts.

    ``bpe`` merges bytes (Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words
    with Subword Units"), so that it knows every text; ``wordpiece`` takes the longest piece that
    fits, out of merged characters; ``unigram`` the likeliest cut (Kudo 2018, "Subword
    Regularization"); ``words`` takes whole words and marks. All but ``unigram`` give the same
    tokenizer for the same texts; the trainer of ``unigram`` adds up numbers in an order of its own,
    so that its scores may differ in the third digit.

    Args:
        texts: read once, in a stream; the distinct words are held in memory.
        kind: one of the above.
        size: most pieces that it may have, the four special ones counted in.
        lowercase: merge what differs in case only; translations are then in lower case too.

    Returns:
        The tokenizer as JSON.

    Raises:
        RecipeError: `size` cannot hold the characters (``bpe``: the bytes) of the texts.
        DataError: the texts hold nothing to learn from.
    """
    from tokenizers import AddedToken

    tokenizer, trainer = _untrained(kind, size)
    tokenizer.normalizer = _normalizer(lowercase)
    try:
        tokenizer.train_from_iterator(texts, trainer)
    except Exception as error:  # the library raises nothing narrower
        if "not large enough" in str(error):
            raise _too_small(size, kind) from error
        raise
    if tokenizer.get_vocab_size() > size:
        raise _too_small(size, kind, tokenizer.get_vocab_size())
    _finish(tokenizer, kind)
    if tokenizer.get_vocab_size() <= len(SPECIAL):
        raise DataError(f"no {kind} tokenizer can be learnt from texts without any character.")
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return tokenizer.to_str()


def _too_small(size: int, kind: str, least: int | None = None) -> RecipeError:
    what = "256 bytes" if kind == "bpe" else "characters of the texts"
    needed = "" if least is None else f", which need {least:,}"
    other = "" if kind == "bpe" else "; or write data.tokenizer: bpe, which spells them as bytes"
    return RecipeError(
        f"data.vocabulary_size is {size:,}: too small for the {what} and the {len(SPECIAL)} "
        f"special tokens{needed}: raise it{other}."
    )


def _untrained(kind: TokenizerKind, size: int) -> tuple[Tokenizer, Any]:
    """Make a tokenizer and its trainer."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    common: Any = {"vocab_size": size, "special_tokens": list(SPECIAL), "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return tokenizer, trainers.BpeTrainer(min_frequency=2, initial_alphabet=alphabet, **common)
    parts = _CHUNKS if kind == "unigram" else _WORDS
    # The trainer of wordpiece gives other ids each time; that of bpe learns the same merges.
    model: Any = {"wordpiece": models.BPE, "unigram": models.Unigram, "words": models.WordLevel}
    trainer: Any = {
        "wordpiece": lambda: trainers.BpeTrainer(min_frequency=2, **common),
        "unigram": lambda: trainers.UnigramTrainer(unk_token=_UNKNOWN, **common),
        "words": lambda: trainers.WordLevelTrainer(**common),
    }
    tokenizer = Tokenizer(model[kind](**({"unk_token": _UNKNOWN} if kind == "words" else {})))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(parts), "isolated")
    return tokenizer, trainer[kind]()


def _normalizer(lowercase: bool) -> Any:
    """Make what comes before all cutting; every text then begins with a blank, as its words do."""
    from tokenizers import Regex, normalizers

    lower = [normalizers.Lowercase()] if lowercase else []
    blanks = normalizers.Replace(Regex(_SPACE), " ")
    steps = [*lower, normalizers.NFC(), blanks, normalizers.Strip(), normalizers.Prepend(" ")]
    return normalizers.Sequence(steps)


def _finish(tokenizer: Tokenizer, kind: TokenizerKind) -> None:
    """Give a trained tokenizer its model for use, with ids in a fixed order."""
    from tokenizers import decoders, models

    tokenizer.decoder = decoders.ByteLevel() if kind == "bpe" else decoders.Fuse()
    if kind == "wordpiece":
        tokenizer.model = models.WordPiece(
            tokenizer.get_vocab(),
            unk_token=_UNKNOWN,
            continuing_subword_prefix="",
            max_input_chars_per_word=_LONGEST_WORD,
        )
    elif kind == "unigram":
        learnt: Iterable[tuple[str, float]] = json.loads(tokenizer.to_str())["model"]["vocab"]
        pieces = sorted((piece, score) for piece, score in learnt if piece not in SPECIAL)
        special = [(name, 0.0) for name in SPECIAL]
        tokenizer.model = models.Unigram([*special, *pieces], SPECIAL.index(_UNKNOWN), False)
