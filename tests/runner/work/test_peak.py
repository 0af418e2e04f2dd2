"""What a stage's manifest says of the GPU memory that it took: nothing without a GPU, the peak with one."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nsd.plugins.api import Device
from nsd.runner.plan.jobs import PluginJob
from nsd.runner.store import provenance
from nsd.runner.work.worker import _machine, _neutral
from toy_jobs import make_job, to_score, to_train

TRAIN = to_train(trainer=PluginJob("trainer", "sft", {"epochs": 2, "micro_batch_size": 1}))
JOB = make_job(TRAIN, settings={"trainer": {"config": {"epochs": 2}}})


class Cuda:
    """What is asked of torch.cuda, of two GPUs; the real one says that there is none here."""

    def __init__(self) -> None:
        self.peaks = [3 * 2**30, 5 * 2**30]

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return len(self.peaks)

    def get_device_name(self, index: int) -> str:
        return "NVIDIA L4"

    def max_memory_allocated(self, index: int) -> int:
        return self.peaks[index]

    def reset_peak_memory_stats(self, index: int) -> None:
        self.peaks[index] = 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=found, get_num_threads=lambda: 1))
    return found


def test_a_stage_on_gpus_says_the_largest_peak_and_what_it_hung_on(cuda: Cuda) -> None:
    found = _machine(replace(JOB, device=Device("cuda")))
    assert found.gpu_peak_bytes == 5 * 2**30
    assert found.to_json()["neutral"] == {"micro_batch_size": 1}


def test_the_next_stage_begins_at_nothing(cuda: Cuda) -> None:
    provenance.forget_peak()
    assert _machine(JOB).gpu_peak_bytes is None and "neutral" not in _machine(JOB).to_json()


def test_without_a_gpu_nothing_is_said() -> None:
    import torch

    assert not torch.cuda.is_available()
    provenance.forget_peak()
    assert not {"gpu_peak_bytes", "neutral"} & set(_machine(replace(JOB, device=Device("cpu"))).to_json())


def test_what_memory_hangs_on_are_the_fields_that_are_in_no_key() -> None:
    assert _neutral(JOB) == {"micro_batch_size": 1} and _neutral(make_job(to_score("dada"))) == {}
