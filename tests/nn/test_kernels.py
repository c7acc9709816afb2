from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from seqlab.errors import UsageError
from seqlab.nn import kernels
from seqlab.nn.kernels import chosen, library, obstacle, wanted

ON_CPU = torch.zeros(1)
GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SEQLAB_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(kernels, "installed", lambda: True)
    kernels._obstacle_of_gpu.cache_clear()
    yield
    kernels._obstacle_of_gpu.cache_clear()


def a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], cuda: str | None) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Abacus 3")


@pytest.mark.parametrize("switch", ["auto", "native", "", None])
def test_a_cpu_gets_compiled_kernels(switch: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "obstacle", lambda: None)
    if switch is not None:
        monkeypatch.setenv("SEQLAB_KERNELS", switch)
    assert chosen(ON_CPU) == "native"
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # not a reason to be slow
    assert chosen(ON_CPU) == "native"


def test_a_cpu_gets_plain_kernels_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "obstacle", lambda: None)
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")
    assert chosen(ON_CPU) == "plain"


def test_without_a_compiler_auto_is_plain_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "obstacle", lambda: "there is no compiler")
    monkeypatch.setattr(library, "_said", set())
    assert [chosen(ON_CPU), chosen(ON_CPU)] == ["plain", "plain"]
    assert capfd.readouterr().err.count("there is no compiler, so plain PyTorch computes") == 1


def test_asking_for_compiled_kernels_that_cannot_be_had_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "obstacle", lambda: "there is no compiler")
    monkeypatch.setenv("SEQLAB_KERNELS", "native")
    with pytest.raises(UsageError) as caught:
        chosen(ON_CPU)
    assert str(caught.value) == (
        "SEQLAB_KERNELS is native, but there is no compiler: install g++, or set it to auto or "
        "plain."
    )


def test_the_interpreter_runs_triton_on_a_cpu_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert chosen(ON_CPU) == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UsageError):
        chosen(ON_CPU)


def test_a_wrong_value_is_named_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "tritn")
    with pytest.raises(UsageError) as caught:
        chosen(ON_CPU)
    message = (
        "SEQLAB_KERNELS is 'tritn': set it to auto, native, triton or plain. Did you mean 'triton'?"
    )
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("device", "there", "why"),
    [
        ("cpu", True, "the tensors are on the device cpu, not on a CUDA GPU"),
        ("meta", True, "the tensors are on the device meta, not on a CUDA GPU"),
        ("cpu", False, "Triton is not installed, which comes with the CUDA build of torch"),
    ],
)
def test_asking_for_triton_where_it_cannot_run_is_an_error(
    device: str, there: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "triton")
    monkeypatch.setattr(kernels, "installed", lambda: there)
    with pytest.raises(UsageError) as caught:
        chosen(torch.zeros(1, device=device))
    assert str(caught.value) == f"SEQLAB_KERNELS is triton, but {why}: set it to auto or plain."


@pytest.mark.parametrize(
    ("capability", "cuda", "why"),
    [
        ((9, 0), "13.0", None),
        ((8, 0), "12.6", None),
        ((7, 5), "12.6", "Abacus 3 has compute capability 7.5, and the kernels need 8.0 or more"),
        ((9, 4), None, "Abacus 3 is no NVIDIA GPU"),
    ],
)
def test_a_gpu_must_be_able_to(
    capability: tuple[int, int],
    cuda: str | None,
    why: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_gpu(monkeypatch, capability, cuda)
    assert obstacle(GPU) == why
    monkeypatch.setattr(kernels, "installed", lambda: False)
    assert str(obstacle(GPU)).startswith("Triton is not installed")


@pytest.mark.parametrize("switch", ["auto", "native", "plain", ""])
def test_a_gpu_gets_triton_only_when_asked(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGPU:
        device = GPU
        is_cpu = False

    a_gpu(monkeypatch, (9, 0), "13.0")
    monkeypatch.setenv("SEQLAB_KERNELS", switch)
    assert chosen(OnGPU()) == "plain"  # type: ignore[arg-type]
    monkeypatch.setenv("SEQLAB_KERNELS", "triton")
    assert chosen(OnGPU()) == "triton"  # type: ignore[arg-type]


def test_unset_means_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted() == "auto"
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")
    assert wanted() == "plain"
