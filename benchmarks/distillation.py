"""Memory and time of one distillation loss, forward and backward, beside TRL's two ways of computing it.

    python -m benchmarks.distillation [--tokens 1024] [--vocabulary 151936] [--hidden 896] [--rounds 3] [--record]

Each measurement is a process of its own. Memory is the largest resident size (on a GPU what torch allocated at most)
less what was held before, and less the bytes of the gradients that are left (hidden states and the student's head):
above parameters and gradients. Time is the quickest round, one thread, of loss and gradients in float32. Losses must
agree, and so must the gradients of the hidden states, or the benchmark fails.

The peers are what TRL's experimental SDPO trainer does (logits of student and teacher whole) and what its stable
distillation trainer does (trl.kernels, in tiles; full vocabulary alone).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.clocks import module, run
from benchmarks.frame import Row, argument_parser, report

ALPHA, TOPK = 0.5, 100
SDPO = "TRL's experimental SDPO"
WAYS = {
    "full vocabulary": {"nsd": "", "trl sdpo": SDPO, "trl kernels": "TRL's `chunked_divergence`"},
    "top 100 and tail": {"nsd": "", "trl sdpo": SDPO},
}


def loss_of(way: str, topk: int | None, student: Any, teacher: Any, weight: Any, teacher_weight: Any) -> Any:
    """Mean divergence over tokens from hidden states [N, H] and heads [V, H]."""
    import torch

    if way == "nsd":
        from nsd.plugins.trainers.losses import Head, Teacher, distillation_loss

        mask = torch.ones(1, len(student), dtype=torch.bool, device=student.device)
        held = Teacher(teacher[None], Head(teacher_weight))
        return distillation_loss(student[None], Head(weight), held, mask, ALPHA, topk)
    if way == "trl kernels":
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

        divergence, _ = ChunkedDivergenceFunction.apply(student, weight, None, teacher, teacher_weight, None, ALPHA)
        return divergence.mean()
    from trl.experimental.sdpo import loss_utils

    logits = student @ weight.T
    with torch.no_grad():
        teacher_logits = teacher @ teacher_weight.T
    if topk is None:
        found = loss_utils.compute_full_logit_self_distillation_loss(logits, teacher_logits, distillation_alpha=ALPHA)
    else:
        found = loss_utils.compute_topk_self_distillation_loss(
            logits, teacher_logits, distillation_topk=topk, distillation_alpha=ALPHA, distillation_add_tail=True
        )
    return found.mean()


def one_way(options: argparse.Namespace) -> dict[str, float]:
    """One way in this process."""
    import torch

    way, topk = options.way, int(options.topk) or None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens, vocabulary, hidden = options.tokens, options.vocabulary, options.hidden
    student, teacher = (torch.randn(tokens, hidden) for _ in range(2))
    weight = torch.randn(vocabulary, hidden) / hidden**0.5 * 3
    teacher_weight = weight + 0.1 * torch.randn(vocabulary, hidden) / hidden**0.5
    student, teacher, weight, teacher_weight = (
        one.to(options.device) for one in (student, teacher, weight, teacher_weight)
    )
    student.requires_grad_()
    weight.requires_grad_()
    loss_of(way, topk, student[:2], teacher[:2], weight[:200], teacher_weight[:200])  # imports are nobody's memory
    before, held = peak_and_held(options.device)
    seconds, peak = [], before
    for number in range(options.rounds):
        student.grad = weight.grad = None
        began = time.perf_counter()
        loss = loss_of(way, topk, student, teacher, weight, teacher_weight)
        loss.backward()
        loss.item()  # a GPU has finished
        seconds.append(time.perf_counter() - began)
        if number == 0:
            peak, _ = peak_and_held(options.device)
    assert student.grad is not None and weight.grad is not None
    gradients = student.grad.nbytes + weight.grad.nbytes
    return {
        "loss": loss.item(),
        "gradient": student.grad.norm().item(),
        "mib": (max(peak, before) - held - gradients) / 2**20,
        "seconds": min(seconds),
    }


def peak_and_held(device: str) -> tuple[int, int]:
    """Bytes held at most so far, and now."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Memory and time beside each peer."""
    counts = [f"--{name}={getattr(options, name)}" for name in ("tokens", "vocabulary", "hidden", "rounds", "device")]
    size = f"{options.tokens:,} tokens x {options.vocabulary:,} entries, hidden {options.hidden}"
    for title, ways in WAYS.items():
        topk = str(TOPK if title.startswith("top") else 0)
        found = {
            way: json.loads(run(module("distillation", "--way", way, "--topk", topk, *counts)).out.splitlines()[-1])
            for way in ways
        }
        own = found.pop("nsd")
        for way, one in found.items():
            if any(abs(one[key] - own[key]) > 1e-4 * abs(own[key]) for key in ("loss", "gradient")):
                raise SystemExit(f"distillation: {title}: nsd has {own}, {way} {one}")
            for name, unit, key in (("memory", "MiB", "mib"), ("time", "s", "seconds")):
                yield Row(
                    f"a loss and its gradients, {title}, {name}", WAYS[title][way], unit, own[key], one[key],
                    own[key] / one[key], f"{size}, alpha {ALPHA}; losses and gradients equal",
                )  # fmt: skip


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, device=True)
    for name, value in (("tokens", 1024), ("vocabulary", 151_936), ("hidden", 896), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--topk", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one_way(options)))
        return 0
    return report(options, measure(options), ("torch", "trl"))


if __name__ == "__main__":
    sys.exit(main())
