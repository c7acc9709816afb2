from __future__ import annotations

from seqlab.explain.cost import ModelCost, PartCost
from seqlab.explain.cost_table import table_of
from seqlab.explain.pace import Pace
from seqlab.nn.costs import Cost


def part(name: str, count: int, cost: Cost | None = None, held: float = 0.0) -> PartCost:
    return PartCost(name, count, {"float32": 4 * count}, cost, held, 2 * held)


def cost(*parts: PartCost, total: PartCost, paces: list[Pace], counter: str) -> ModelCost:
    return ModelCost(
        "Tagger", [*parts], total, 25, 6.25, paces, "cpu", "a machine, threads: 1", counter
    )


def test_a_table_by_hand() -> None:
    found = cost(
        part("word embedding", 9000, Cost(0, 0), 400.4),
        part("layer 1: lstm", 1200, Cost(1234.5, 60), 80),
        total=part("all", 10_200, Cost(1234.5, 60), 480),
        paces=[Pace(1, 1234.5, 30, 0.12345), Pace(163, 98765.4, 3, 0.01)],
        counter="RAPL, package-0",
    )
    assert table_of(found, "runs/ner/1") == (
        "runs/ner/1: Tagger, 10,200 parameters, 40,800 bytes of float32\n"
        "\n"
        "part            parameters   bytes  matrices  elements  inference  training\n"
        "word embedding       9,000  36,000         0         0        400       801\n"
        "layer 1: lstm        1,200   4,800     1,234        60         80       160\n"
        "---------------------------------------------------------------------------\n"
        "all                 10,200  40,800     1,234        60        480       960\n"
        "\n"
        "matrices, elements: multiply-adds a token, by the formulae of seqlab.nn.costs\n"
        "inference: bytes of activations a token, the most alive at once, measured on a batch\n"
        "training: those held for the gradient, measured on a batch\n"
        "characters: of a word of 6.2, once for each distinct word\n"
        "\n"
        "speed                    tokens/s  runs  J per 1,000 tokens\n"
        "one sentence at a time      1,234    30               0.123\n"
        "163 sentences at a time    98,765     3                0.01\n"
        "\n"
        "medians; tokens a sentence: 25, drawn from the model's vocabulary\n"
        "on cpu, a machine, threads: 1\n"
        "energy: RAPL, package-0, all that it uses\n"
    )


def test_what_is_not_known_is_called_unknown() -> None:
    found = cost(
        part("encoder: Elsewhere", 5),
        total=part("all", 5),
        paces=[Pace(1, 10.0, 3, None)],
        counter="there is no counter",
    )
    lines = table_of(found, "m").splitlines()
    assert lines[3].split() == ["encoder:", "Elsewhere", "5", "20", "unknown", "unknown", "0", "0"]
    assert "unknown: the equations of an encoder that is not of seqlab" in lines
    assert any(line.endswith(" 3             unknown") for line in lines)
    assert lines[-1] == "energy unknown: there is no counter"


def test_large_models_fit_into_100_columns() -> None:
    big = 99_999_999
    work = Cost(99_999_999, 999_999)
    found = cost(
        part("layer 10: layernorm, two ways", big, work, 999_999),
        total=part("all", big, work, 999_999),
        paces=[Pace(163, 9_999_999.0, 99_999, 123.4)],
        counter="RAPL, dram and package-0 and package-1",
    )
    lines = table_of(found, "runs/ner/latest").splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
