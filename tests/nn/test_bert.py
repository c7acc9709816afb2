"""Pretrained encoders as embedders, on small ones with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from seqlab.errors import MissingExtraError, RecipeError
from seqlab.nn import bert
from seqlab.nn.bert import BertEmbedder, capacity_of, find_pretrained
from seqlab.word_pieces import Pieces, WordPieces

LETTERS = [chr(i) for i in range(ord("a"), ord("z") + 1)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WHOLE = ["the", "dog", "ran", "to", "lon", "paris", ".", ","]


def wordpiece() -> Tokenizer:
    """As BERT's: pieces that go on begin with ##; lower case; control characters are dropped."""
    pieces = [*SPECIAL, *WHOLE, *LETTERS, *(f"##{c}" for c in [*LETTERS, "don"])]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_pairs() -> Tokenizer:
    """As RoBERTa's: bytes, and a space that belongs to the word after it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", *alphabet, "\u0120d", "\u0120do", "\u0120dog"]
    merges = [("\u0120", "d"), ("\u0120d", "o"), ("\u0120do", "g")]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def unigram() -> Tokenizer:
    """As that of XLM-R: a mark before each word."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [("\u2581dog", -1.0), ("s", -2.5), *((c, -4.0) for c in LETTERS if c != "s")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


TOKENIZERS = {"wordpiece": wordpiece, "byte pairs": byte_pairs, "unigram": unigram}


def configuration(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": 80,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
        **changes,
    }


def pretrained(folder: Path, **changes: Any) -> Path:
    """Make a folder as `save_pretrained` does."""
    torch.manual_seed(7)
    config = configuration(**changes)
    bert._built(config).save_pretrained(folder)
    wordpiece().save(str(folder / "tokenizer.json"))
    return folder


def arranged(words: list[list[str]], capacity: int = 24) -> Pieces:
    forms = sorted({word for sentence in words for word in sentence})
    places = torch.tensor([forms.index(w) for s in words for w in s]).numpy()
    pieces = WordPieces(wordpiece().to_str(), capacity)
    return pieces.arrange(forms, places, [len(sentence) for sentence in words])


def embedded(embedder: BertEmbedder, words: list[list[str]]) -> Tensor:
    p = arranged(words)
    return embedder(p.ids, p.lengths, p.first, p.counts)


def states(embedder: BertEmbedder, ids: list[int]) -> Tensor:
    """``(layer, piece, size)`` of the pieces of one sentence alone."""
    with torch.no_grad():
        out = embedder.bert(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            output_hidden_states=True,
        )
    return torch.cat(out.hidden_states)


SENTENCES = [["the", "dog", "ran", "to", "london", "."], ["paris"], ["dogs", "\u200b", "ran"]]
#            [CLS] london = lon ##don [SEP]; dogs = dog ##s; a zero-width space is nothing


@pytest.mark.parametrize("pooling", ["first", "last", "mean", "first_last"])
def test_words_are_what_their_pieces_are_alone(pooling: Any) -> None:
    embedder = BertEmbedder(configuration(), pooling=pooling).eval()
    found = embedded(embedder, SENTENCES)
    assert found.shape == (10, embedder.output_size)
    vocabulary = wordpiece().get_vocab()
    one = [
        vocabulary[p] for p in ["[CLS]", "the", "dog", "ran", "to", "lon", "##don", ".", "[SEP]"]
    ]
    last = states(embedder, one)[-1]
    lon, don = last[5], last[6]
    expected = {
        "first": lon,
        "last": don,
        "mean": (lon + don) / 2,
        "first_last": torch.cat([lon, don]),
    }[pooling]
    torch.testing.assert_close(found[4], expected, rtol=1e-4, atol=1e-5)
    dot = torch.cat([last[7]] * 2) if pooling == "first_last" else last[7]
    torch.testing.assert_close(found[5], dot, rtol=1e-4, atol=1e-5)


def test_layers_are_mixed() -> None:
    embedder = BertEmbedder(configuration(), layers="mix").eval()
    assert embedder.mixture is not None
    assert embedder.scale is not None
    with torch.no_grad():
        embedder.mixture.copy_(torch.tensor([0.1, -0.5, 2.0, 0.3]))
        embedder.scale.fill_(1.7)
    found = embedded(embedder, [["paris"]])
    vocabulary = wordpiece().get_vocab()
    layers = states(embedder, [vocabulary[p] for p in ("[CLS]", "paris", "[SEP]")])[:, 1]
    shares = torch.tensor([0.1, -0.5, 2.0, 0.3]).softmax(0)
    torch.testing.assert_close(found[0], 1.7 * (shares @ layers), rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert embedder.mixture.grad is not None
    assert all(p.grad is None for p in embedder.bert.parameters())


def test_a_frozen_encoder_drops_nothing_and_learns_nothing() -> None:
    for embedder in (BertEmbedder(configuration()), BertEmbedder(configuration()).train()):
        assert torch.equal(embedded(embedder, SENTENCES), embedded(embedder, SENTENCES))
    assert not any(p.requires_grad for p in embedder.parameters())
    tuned = BertEmbedder(configuration(), tune="full").train()
    assert not torch.equal(embedded(tuned, SENTENCES), embedded(tuned, SENTENCES))


def test_layers_near_the_input_can_be_frozen() -> None:
    embedder = BertEmbedder(configuration(), tune="full", frozen_layers=2)
    embedded(embedder, SENTENCES).sum().backward()
    learns = {name for name, p in embedder.bert.named_parameters() if p.grad is not None}
    assert learns
    assert all(name.startswith("encoder.layer.2.") for name in learns)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        config = configuration(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        embedder = BertEmbedder(config, tune="full", checkpointing=checkpointing).train()
        embedded(embedder, SENTENCES).square().sum().backward()
        gradients.append([p.grad for p in embedder.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_low_rank_changes_alone_are_learnt(checkpointing: bool, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed (seqlab[lora])")
    found = find_pretrained(str(pretrained(tmp_path / "bert")))
    plain = BertEmbedder(found.config)
    plain.load_pretrained(found.folder)
    embedder = BertEmbedder(
        found.config, tune="lora", rank=2, frozen_layers=2, checkpointing=checkpointing
    )
    embedder.load_pretrained(found.folder)
    before = embedded(embedder.eval(), SENTENCES)
    torch.testing.assert_close(before, embedded(plain.eval(), SENTENCES))  # they begin as none
    embedder.train()
    embedded(embedder, SENTENCES)[:, 0].sum().backward()
    learns = {name: p for name, p in embedder.named_parameters() if p.grad is not None}
    assert learns
    assert all(".layer.2." in name and ".lora_" in name for name in learns)
    assert {min(p.shape) for p in learns.values()} == {2}
    with torch.no_grad():
        for p in learns.values():
            p.sub_(p.grad if p.grad is not None else 0)
    assert not torch.allclose(embedded(embedder.eval(), SENTENCES), before)


def test_pretrained_weights_are_taken_up(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "bert")
    found = find_pretrained(str(folder))
    embedder = BertEmbedder(found.config)
    torch.manual_seed(99)
    other = BertEmbedder(found.config).eval()
    embedder.load_pretrained(found.folder)
    other.load_pretrained(found.folder)
    assert torch.equal(embedded(embedder.eval(), SENTENCES), embedded(other, SENTENCES))
    assert found.tokenizer == (folder / "tokenizer.json").read_text(encoding="utf-8")


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no folder '\./nothing'"):
        find_pretrained("./nothing")
    with pytest.raises(RecipeError, match="holds no encoder: its config.json cannot be read"):
        find_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(RecipeError, match="'gpt2', which is no encoder"):
        find_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(configuration()), encoding="utf-8")
    with pytest.raises(RecipeError, match="has no tokenizer.json"):
        find_pretrained(str(tmp_path))
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    found = find_pretrained(str(tmp_path))
    with pytest.raises(RecipeError, match="weights in .* cannot be read"):
        BertEmbedder(found.config).load_pretrained(found.folder)
    save_file({"other": torch.ones(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"cannot be read \(there is no embeddings\.LayerNorm"):
        BertEmbedder(found.config).load_pretrained(found.folder)


def test_a_hub_that_is_out_of_reach_names_the_folder_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **options: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(RecipeError, match=r"\(no network\); copy the encoder into a folder"):
        find_pretrained("bert-base-cased")


def test_the_hub_is_asked_for_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder, asked = pretrained(tmp_path / "bert"), []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_pretrained("org/bert", "abc123").config["model_type"] == "bert"
    assert asked == [("org/bert", "abc123")]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"seqlab\[minilm\]"):
        find_pretrained("minilm")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"seqlab\[lora\]"):
        BertEmbedder(configuration(), tune="lora")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pooling": "frist"}, "'frist' is none of .* Did you mean 'first'"),
        ({"layers": "all"}, "'all' is none of last, mix"),
        ({"tune": "frosen"}, "Did you mean 'frozen'"),
        ({"frozen_layers": 4, "tune": "full"}, "frozen_layers"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        BertEmbedder(configuration(), **changes)


def test_how_much_is_read_at_once() -> None:
    assert capacity_of(configuration()) == 24
    roberta = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert capacity_of(roberta) == 512
    assert capacity_of({"model_type": "deberta"}) == 512
