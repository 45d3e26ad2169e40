"""Every runtime gives torch's descriptors, for every registered network that it takes, at any size."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.small_networks import with_statistics
from tests.models.test_every_model import SMALL_FORMS, small_swin  # noqa: F401  a fixture
from ultron_cli import machine
from ultron_cli.errors import UltronError
from ultron_cli.models import MODELS, create_model
from ultron_cli.models.runtimes import RUNTIMES, RuntimeName, Threads, compiled, core, exported, open_network
from ultron_cli.models.weights.checkpoints import LoadedModel, sha256_of_weights
from ultron_cli.retrieval.extraction.describe import describe

CPU = torch.device("cpu")
LEAST_COSINE = 0.99999
SIDES_PX = ((96, 160), (131, 67), (64, 224))  # (H, W) of photos
# All of them, at every scale, below the size at which torch convolves another way and so compiles anew, for seconds.
COMPILED_SIDES_PX = ((40, 60), (57, 38), (32, 76))
EXPORTED: list[RuntimeName] = [name for name, entry in RUNTIMES.items() if entry.extra and entry.is_installed]
# One of each kind: presets of a network differ in size alone.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "cfcd": ("cfcd-r50", SMALL_FORMS["cfcd-r50"]),
    "dolg": ("dolg-r50", SMALL_FORMS["dolg-r50"]),
    "gem": ("gem", SMALL_FORMS["gem"]),
    "gem-efficientnet": ("gem", {"backbone": "test_efficientnet"}),
    "gem-vit": ("gem", {"backbone": "test_vit"}),
    "gem-class-token": ("gem", {"backbone": "test_vit", "pooling": "cls"}),
    "senet": ("senet-r50", SMALL_FORMS["senet-r50"]),
}
OTHER_IN_OPENVINO = {"gem-vit", "gem-class-token"}  # an extraction refuses what it gives for them
needs_openvino = pytest.mark.skipif("openvino" not in EXPORTED, reason="openvino is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exported networks of the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(exported.CACHE_VARIABLE, str(tmp_path_factory.mktemp("networks")))
        yield


def loaded(name: str, settings: dict[str, Any]) -> LoadedModel:
    torch.manual_seed(0)
    model = create_model(name, **settings)
    with_statistics(model)
    return LoadedModel(model, sha256_of_weights(model), {"kind": "untrained", "seed": 0})


def photo(height: int, width: int) -> torch.Tensor:
    """(1, H, W, 3) uint8: a smooth picture, as photos are."""
    small = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(height))
    pixels = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * pixels).to(torch.uint8).permute(0, 2, 3, 1)


def least_cosine(model: LoadedModel, network: core.Network, sides_px: tuple[tuple[int, int], ...] = SIDES_PX) -> float:
    """Over the sizes, with one scale and with three."""
    with torch.inference_mode():
        return min(
            float((describe(model.model, pixels, scales) * describe(model.model, pixels, scales, network)).sum())
            for pixels in (photo(*sides) for sides in sides_px)
            for scales in ((1.0,), (0.7071, 1.0, 1.4142))
        )


def network_of(name: RuntimeName, model: LoadedModel, device: str = "cpu", precision: Any = "float32") -> core.Network:
    return open_network(name, model, torch.device(device), precision, Threads(n_at_once=1, per_call=1))


@pytest.mark.skipif(len(EXPORTED) < 2, reason="onnxruntime or openvino is not installed")
@pytest.mark.parametrize("network", NETWORKS)
def test_runtimes_agree_with_torch(network: str) -> None:
    model = loaded(*NETWORKS[network])
    names = [name for name in EXPORTED if name != "openvino" or network not in OTHER_IN_OPENVINO]
    cosines = {name: least_cosine(model, network_of(name, model)) for name in names}
    assert min(cosines.values()) > LEAST_COSINE, cosines


@needs_openvino
def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    """As it does by itself where its package for that is there."""
    program = """if True:
        import sys
        told = []
        sys.addaudithook(lambda event, _: told.append(event) if event.startswith(("socket.", "os.fork")) else None)
        from ultron_cli.models.runtimes.openvino_runtime import silent_openvino
        silent_openvino()
        print(told)"""
    quiet = {"CI", "TF_BUILD", "JENKINS_URL"}  # where OpenVINO is silent by itself
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(tmp_path)}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer
    assert not (tmp_path / "intel").exists()


@needs_openvino
def test_openvino_infers_once_before_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that do so first in a process can wait for each other for ever."""
    from ultron_cli.models.runtimes.openvino_runtime import silent_openvino

    silent_openvino()
    openvino = sys.modules["openvino"]
    infer = openvino.InferRequest.infer
    threads = []

    def noted(*arguments: Any, **named: Any) -> Any:
        threads.append(threading.current_thread())
        return infer(*arguments, **named)

    monkeypatch.setattr(openvino.InferRequest, "infer", noted)
    network_of("openvino", loaded("gem", {"backbone": "test_resnet"}))
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("network", core.WITHOUT_EXPORT)
def test_networks_that_stay_with_torch_are_refused_with_the_reason(network: str) -> None:
    with pytest.raises(UltronError, match=f"does not take .*: it {core.WITHOUT_EXPORT[network]}"):
        network_of("onnxruntime", loaded(network, SMALL_FORMS[network]))


def test_a_compiled_network_agrees_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the compiler's front alone, which takes no C++ compiler."""
    monkeypatch.setattr(compiled, "COMPILER", "aot_eager")
    model = loaded(*NETWORKS["gem"])
    assert least_cosine(model, network_of("compile", model), COMPILED_SIDES_PX) > LEAST_COSINE


def test_every_registered_network_is_taken_or_has_own_operators() -> None:
    taken = {MODELS[name].module for name, _ in NETWORKS.values()}
    for name, entry in MODELS.items():
        model = create_model(name, **SMALL_FORMS[name])
        assert core.has_own_operators(model) == (entry.module == "ultron")
        is_known = entry.module in taken or core.has_own_operators(model) or entry.module in core.WITHOUT_EXPORT
        assert is_known or model.per_scale is not model  # which is one of the others


def test_an_exported_network_is_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(exported.CACHE_VARIABLE, str(tmp_path))
    contents = iter([b"first", b"of other weights", b"of other settings"])
    monkeypatch.setattr(exported, "onnx_bytes", lambda _: next(contents))
    model = loaded("gem", {"backbone": "test_resnet"})
    path = exported.exported_network(model)
    assert path.read_bytes() == b"first" and exported.exported_network(model) == path
    others = [
        exported.exported_network(LoadedModel(model.model, "other", {})),
        exported.exported_network(loaded("gem", {"backbone": "test_resnet", "p": 4.0})),
    ]
    assert len({path, *others}) == 3 == len(list(tmp_path.iterdir()))


def test_a_runtime_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultron_cli.models.runtimes.find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(
        UltronError, match=r'^runtime openvino needs openvino; install it: pip install "ultron\[openvino\]"$'
    ):
        network_of("openvino", loaded("gem", {"backbone": "test_resnet"}))


@pytest.mark.parametrize("name", EXPORTED)
def test_what_a_runtime_does_not_take_is_said(name: RuntimeName, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gem", {"backbone": "test_resnet"})
    with pytest.raises(UltronError, match=f"runtime {name} computes on the CPU, found device cuda"):
        network_of(name, model, "cuda")
    with pytest.raises(UltronError, match=f"runtime {name} computes in float32.*, found float16"):
        network_of(name, model, precision="float16")
    with pytest.raises(UltronError, match=f"ULTRON's own operators, which runtime {name} does not have"):
        network_of(name, loaded("ultron-t", SMALL_FORMS["ultron-t"]))


def test_bfloat16_is_for_processors_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, has_units in (
        (frozenset({"avx2"}), False),
        (frozenset({"avx512f", "avx512_bf16"}), True),
        (frozenset({"amx_tile", "amx_bf16"}), True),
    ):
        assert machine.bfloat16_units(flags) == has_units
        monkeypatch.setattr(core, "cpu_flags", lambda flags=flags: flags)
        if has_units:
            core.require_precision("openvino", "bfloat16", ("float32", "bfloat16"))
        else:
            with pytest.raises(UltronError, match="with AMX or AVX512-BF16, and this one has neither"):
                core.require_precision("openvino", "bfloat16", ("float32", "bfloat16"))
