"""What the gates and states of each cell mean, in a sentence each."""

from __future__ import annotations

_CANDIDATE = "what the cell would take in from this word, before the gates decide; −1 to 1"
_LSTM = {
    "input": "how much of the candidate is written into the cell; 0 nothing, 1 all of it",
    "forget": "how much of the cell stays, in spite of its name; 1 keeps all, 0 forgets all",
    "candidate": _CANDIDATE,
    "output": "how much of the cell is shown to the next layer and the next word",
    "cell": "the memory after this word: forget × cell before + input × candidate",
    "hidden": "what the layer gives for this word: output × tanh(cell)",
}


def _without_forget(stays: str, cell: str) -> dict[str, str]:
    kept = {name: text for name, text in _LSTM.items() if name != "forget"}
    return {**kept, "input": f"{_LSTM['input']}; {stays}", "cell": cell}


MEANINGS: dict[str, dict[str, str]] = {
    "lstm": _LSTM,
    "peephole": {
        **_LSTM,
        "input": f"{_LSTM['input']}; it also sees the cell before",
        "forget": f"{_LSTM['forget']}; it also sees the cell before",
        "output": f"{_LSTM['output']}; it also sees the new cell",
    },
    "layernorm": {
        **_LSTM,
        "hidden": "what the layer gives for this word: output × tanh(normalised cell)",
    },
    "coupled": _without_forget(
        "1 − input of the cell stays",
        "the memory after this word: (1 − input) × cell before + input × candidate",
    ),
    "no-forget": _without_forget(
        "all of the cell stays", "the memory after this word: cell before + input × candidate"
    ),
    "gru": {
        "reset": "how much of the state before the candidate sees; 0 starts afresh",
        "update": "how much of the state stays; 1 keeps all, 0 takes the candidate",
        "candidate": "what the state would become from this word and what reset lets through",
        "hidden": "the state after this word, which is also what the layer gives: "
        "(1 − update) × candidate + update × state before",
    },
    "rnn": {"hidden": "the state after this word, which is also what the layer gives"},
    "sru": {
        "candidate": "what the cell would take in from this word",
        "forget": "how much of the cell stays; the candidate gets the rest",
        "reset": "how much of the cell is shown; the layer's input goes past for the rest",
        "cell": "the memory after this word: forget × cell before + (1 − forget) × candidate",
        "hidden": "what the layer gives for this word: reset × tanh(cell) + (1 − reset) × input",
    },
}
