"""What the tables of a comparison say, wherever they are shown."""

from __future__ import annotations

from seqlab.compare.cells import pair_cells, system_cells
from seqlab.compare.comparison import Pair, Row
from seqlab.compare.price import Price


def row(name: str, price: Price, sd: float | None = None, ece: float | None = None) -> Row:
    return Row(name, [1, 2], [50.0, 52.0], 51.0, sd, price, ece=ece)


def price(**changes: object) -> Price:
    return Price(1234, 1.5, 60.0, 500.0, **changes)  # type: ignore[arg-type]


def test_columns_say_what_is_counted_and_are_never_empty() -> None:
    head, cells = system_cells([row("a", price()), row("b", price())])
    assert head == ["system", "score", "seeds", "parameters", "MB", "training", "peak MB"]
    assert cells[0] == ["a", "51.00", "1, 2", "1,234", "1.5", "60 s", "500"]
    speeds = {"tokens_per_second": {1: 100.0, 32: 2000.0}, "joules_per_1000_tokens": {1: 0.5}}
    head, cells = system_cells([row("a", price(**speeds), 1.0, 0.0123), row("b", price())])
    assert head[2:5] == ["sd", "seeds", "ECE"]
    assert head[-3:] == ["tokens/s at 1", "tokens/s at 32", "J/1000 tokens at 1"]
    assert (cells[0][4], cells[0][-3:]) == ("0.0123", ["100", "2,000", "0.50"])
    assert (cells[1][4], cells[1][-3:]) == ("", ["", "", ""])


def test_speeds_of_translators_name_subwords_and_sentences() -> None:
    one = price(
        unit="target subwords", tokens_per_second={1: 90.0}, sentences_per_second={1: 12.25}
    )
    head, cells = system_cells([row("a", one)])
    assert head[-2:] == ["sentences/s at 1", "target subwords/s at 1"]
    assert cells[0][-2:] == ["12.2", "90"]


def test_pairs_are_told_as_sure_or_not() -> None:
    first = Pair("a", "b", 1.5, -0.25, 3.0, 0.04, 0.02, None, None)
    head, (cells,) = pair_cells([first])
    assert head == ["", "", "difference", "95 %", "p"]
    assert cells == ["a", "against b", "+1.50", "-0.25 to +3.00", "0.0400 (sure)"]
    second = Pair("a", "c", 1.5, -0.25, 3.0, 0.06, 0.06, 0.1, 0.0)
    head, found = pair_cells([first, second])
    assert head[-2:] == ["p over seeds", "order"]
    assert found[1][-3:] == ["0.0600", "0.1000", "0.00"]
