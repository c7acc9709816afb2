"""``seqlab models``: what is installed, what it says of itself, and whether it is still so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from seqlab.errors import BundleError, Parser, UsageError, nearest
from seqlab.installed import as_json, as_table, find_installed, installed_models
from seqlab.receipts import check_receipt

_ACTIONS = ("info", "verify")


def _parser() -> Parser:
    parser = Parser(
        prog="seqlab models",
        usage="seqlab models [--json] | info NAME | verify NAME [--json]",
        description="List the installed models, show the card of one, or check that one is whole "
        "and still answers as it did when it was packed.",
        allow_abbrev=False,
    )
    parser.add_argument("words", metavar="ACTION NAME", nargs="*", help="info or verify, and NAME")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def run(argv: Sequence[str]) -> int:
    """List, show or verify installed models.

    Args:
        argv: what follows ``seqlab models``.

    Returns:
        0, or 1 where a model does not answer as its receipt says.

    Raises:
        UsageError: the action is unknown, or lacks its model.
        BundleError: there is no such model, or it is not what its receipt says.
    """
    given = _parser().parse_args(argv)
    if not given.words:
        found = installed_models()
        print(as_json(found) if given.json else as_table(found))
        return 0
    action, *names = given.words
    if action not in _ACTIONS or len(names) != 1:
        raise UsageError(
            f"`seqlab models {' '.join(given.words)}`: write `seqlab models`, `seqlab models info "
            f"NAME` or `seqlab models verify NAME`.{nearest(action, _ACTIONS)}"
        )
    folder = _folder(names[0])
    if action == "info":
        print((folder / "README.md").read_text(encoding="utf-8"), end="")
        return 0
    return _verify(names[0], folder, given.json)


def _folder(name: str) -> Path:
    """Find a packed model: installed under a name, or a folder with a receipt."""
    model = find_installed(name)
    if model is not None:
        return model.folder
    if (Path(name) / "receipt.json").is_file():
        return Path(name)
    known = [other.name for other in installed_models()]
    raise BundleError(
        f"no model {name!r} is installed: `seqlab models` lists those that are."
        f"{nearest(name, known)}"
    )


def _verify(name: str, folder: Path, as_data: bool) -> int:
    """Hash every file again, ask the probe sentences again, and compare."""
    receipt = check_receipt(folder)
    from seqlab.bundle import load_bundle, read_json
    from seqlab.probes import answers, differences
    from seqlab.zoo import serve

    expected = read_json(folder, "probe.json").get("answers")
    texts = [one.get("text", "") for one in expected] if isinstance(expected, list) else []
    network = load_bundle(folder, trainable=False)
    found = answers(serve(network, device="cpu"), texts)
    wrong, largest = differences(expected, found)
    if as_data:
        about = {"name": name, "files": len(receipt["files"]), "probes": len(texts)}
        print(json.dumps({**about, "different": wrong, "largest_difference": largest}, indent=2))
        return int(bool(wrong))
    print(f"{len(receipt['files'])} files have the digests of the receipt.")
    if wrong:
        print(*wrong, sep="\n")
        print(
            f"{len(wrong)} of {len(texts)} probe sentences are not answered as in the receipt: the "
            "files are whole, so a package computes otherwise than the versions that the receipt "
            "names."
        )
        return 1
    print(
        f"{len(texts)} of {len(texts)} probe sentences are answered as in the receipt (largest "
        f"difference of a probability or score: {largest:.1e})."
    )
    return 0
