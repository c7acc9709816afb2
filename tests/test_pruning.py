from __future__ import annotations

from typing import Any

import pytest
import torch

from seqlab.errors import UsageError
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.tokens import TokenNetwork
from seqlab.pruning import pruned
from seqlab.vocabulary import Vocabulary
from seqlab.zoo import serve

SOURCE = Vocabulary(
    ["the", "was", "in", "rare", "rarer"],
    padding=True,
    unknown=2,
    lowercase=True,
    characters=Vocabulary("aehinrstw", padding=True, unknown=1),
)
TAGS = Vocabulary(["O", "B-PER", "I-PER"], scheme="iob2", written="iob2")


@pytest.mark.parametrize("rows", ["dense", "frozen"])
def test_kept_words_are_read_as_before_and_others_as_unknown(rows: Any) -> None:
    torch.manual_seed(0)
    model = TaggerNetwork(SOURCE, TAGS, hidden_size=4, embedding_size=4, word_rows=rows).eval()
    small = pruned(model, 3)
    assert isinstance(small, TokenNetwork)
    assert small.source_vocab.tokens == ("the", "was", "in")
    assert len(model.source_vocab.tokens) == 5
    assert not small.training
    kept = "The was in was"
    before, after = serve(model, device="cpu"), serve(small, device="cpu")
    assert before(kept) == after(kept)
    assert small.source_vocab.is_unknown("rare")
    assert before("rare").confidences != after("rare").confidences
    gone = set(model.state_dict()) ^ set(small.state_dict())
    assert gone == set()


@pytest.mark.parametrize("words", [0, -1, 5, 6])
def test_as_many_words_as_there_are_or_none_is_refused(words: int) -> None:
    model = TaggerNetwork(SOURCE, TAGS, hidden_size=4)
    with pytest.raises(UsageError, match="knows 5 words; give a number from 1 to less"):
        pruned(model, words)


def test_a_translator_has_no_words_to_leave_out(make_translator: Any) -> None:
    with pytest.raises(UsageError, match="no vocabulary of words"):
        pruned(make_translator(), 3)
