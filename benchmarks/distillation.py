"""Memory and time of one distillation loss, forward and backward, beside TRL's two ways of computing it.

    python -m benchmarks.distillation [--tokens 1024] [--vocabulary 151936] [--hidden 896] [--rounds 3]

Each measurement is a process of its own. Memory is the largest resident size less what the process held before, and
less the bytes of the gradients that are left (hidden states and the student's head): above parameters and gradients.
Time is the quickest round, one thread, of loss and gradients in float32. The losses must agree, and so must the
gradients of the hidden states.

The peers are what TRL's experimental SDPO trainer does (logits of student and teacher whole) and what its stable
distillation trainer does (trl.kernels, in tiles; full vocabulary alone).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ALPHA, TOPK = 0.5, 100
WAYS = {
    "full vocabulary": ("nsd", "trl sdpo", "trl kernels"),
    "top 100 and tail": ("nsd", "trl sdpo"),
}


def loss_of(way: str, topk: int | None, student: Any, teacher: Any, weight: Any, teacher_weight: Any) -> Any:
    """Mean divergence over tokens from hidden states [N, H] and heads [V, H]."""
    import torch

    if way == "nsd":
        from nsd.plugins.trainers.losses import Head, Teacher, distillation_loss

        mask = torch.ones(1, len(student), dtype=torch.bool)
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


def measure(way: str, topk: int | None, tokens: int, vocabulary: int, hidden: int, rounds: int) -> dict[str, Any]:
    """One way in this process."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    student, teacher = (torch.randn(tokens, hidden) for _ in range(2))
    weight = torch.randn(vocabulary, hidden) / hidden**0.5 * 3
    teacher_weight = weight + 0.1 * torch.randn(vocabulary, hidden) / hidden**0.5
    student.requires_grad_()
    weight.requires_grad_()
    loss_of(way, topk, student[:2], teacher[:2], weight[:200], teacher_weight[:200])  # imports are nobody's memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    seconds = []
    for number in range(rounds):
        student.grad = weight.grad = None
        began = time.perf_counter()
        loss = loss_of(way, topk, student, teacher, weight, teacher_weight)
        loss.backward()
        seconds.append(time.perf_counter() - began)
        if number == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert student.grad is not None and weight.grad is not None
    gradients = student.grad.nbytes + weight.grad.nbytes
    return {
        "loss": loss.item(),
        "gradient": student.grad.norm().item(),
        "mib": (max(peak, before) - held - gradients) / 2**20,
        "seconds": min(seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    for name, value in (("tokens", 1024), ("vocabulary", 151_936), ("hidden", 896), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", nargs=2, metavar=("WAY", "TOPK"))
    given = parser.parse_args()
    sizes = (given.tokens, given.vocabulary, given.hidden, given.rounds)
    if given.only:
        way, topk = given.only
        print(json.dumps(measure(way, int(topk) or None, *sizes)))
        return
    print(f"{given.tokens} tokens x {given.vocabulary} entries, hidden {given.hidden}, alpha {ALPHA}, one thread")
    counts = [f"--{name}={getattr(given, name)}" for name in ("tokens", "vocabulary", "hidden", "rounds")]
    for title, ways in WAYS.items():
        found = {}
        for way in ways:
            topk = str(TOPK if title.startswith("top") else 0)
            command = [sys.executable, "-m", "benchmarks.distillation", "--only", way, topk, *counts]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if done.returncode:
                raise SystemExit(done.stderr)
            found[way] = json.loads(done.stdout.splitlines()[-1])
        own = found["nsd"]
        for way, one in found.items():
            agrees = all(abs(one[key] - own[key]) <= 1e-4 * abs(own[key]) for key in ("loss", "gradient"))
            print(
                f"  {title:<17} {way:<12} {one['mib']:7.0f} MiB (nsd has {own['mib'] / one['mib']:.2f})   "
                f"{one['seconds']:6.1f} s (nsd takes {own['seconds'] / one['seconds']:.2f})   "
                f"{'equal' if agrees else 'DIFFERENT: ' + str(one)}"
            )


if __name__ == "__main__":
    main()
