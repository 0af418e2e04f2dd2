"""What a launch said of its price, and which GPUs a process sees."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from nsd.plugins.api import Device
from nsd.runner.store import provenance


@pytest.mark.parametrize(("said", "price"), [(None, None), ("", None), ("2.5", 2.5), ("0", 0.0), ("dear", None)])
def test_a_price_is_what_the_launch_said(
    said: str | None, price: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NSD_USD_PER_HOUR", raising=False)
    if said is not None:
        monkeypatch.setenv("NSD_USD_PER_HOUR", said)
    assert provenance.usd_per_hour() == price


class Torch(ModuleType):
    """Sees two GPUs, and can use them or not."""

    def __init__(self, usable: bool = True, loading: bool = False, peaks: tuple[int, int] = (5, 7)) -> None:
        super().__init__("torch")
        self.__spec__ = ModuleSpec("torch", None)
        self.__spec__._initializing = loading  # type: ignore[attr-defined]
        self.forgotten: list[int] = []
        self.cuda = SimpleNamespace(
            is_available=lambda: usable,
            device_count=lambda: 2,
            get_device_name=lambda index: f"GPU {index}",
            max_memory_allocated=lambda index: peaks[index],
            reset_peak_memory_stats=self.forgotten.append,
        )

    def get_num_threads(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("torch", "count"), [(Torch(), 2), (Torch(usable=False), 0), (Torch(loading=True), 0), (None, 0)]
)
def test_gpus_count_that_torch_can_use_once_it_is_loaded(
    torch: Torch | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    assert provenance.gpu_count() == count


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        (Torch(), {"torch_threads": 3, "gpus": ["GPU 0", "GPU 1"], "gpu_peak_bytes": 7}),
        (Torch(peaks=(0, 0)), {"torch_threads": 3, "gpus": ["GPU 0", "GPU 1"]}),
        (Torch(usable=False), {"torch_threads": 3}),
        (None, {}),
    ],
)
def test_a_machine_is_written_down_with_what_torch_used_of_it(
    torch: Torch | None, said: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/nsd", "run", "a.yaml"])
    found = provenance.machine(Device(kind="cuda")).to_json()
    here = {name: found.pop(name) for name in ("host", "system", "cpus")}
    assert found == {"command": ["nsd", "run", "a.yaml"], "device": "cuda", **said}
    assert all(here.values()) and "device" not in provenance.machine().to_json()


def test_a_peak_is_forgotten_on_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", usable := Torch())
    provenance.forget_peak()
    assert usable.forgotten == [0, 1]
    monkeypatch.setitem(sys.modules, "torch", unusable := Torch(usable=False))
    provenance.forget_peak()
    assert unusable.forgotten == []
