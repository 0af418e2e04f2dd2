"""How the `hf` engine draws a token: a random stream per row, then the inverse of the cumulative distribution.

**Randomness.** A row's uniform number for step t is output t of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)
started at the row's seed: a counter-based hash in 64-bit integers, so it is the same on every device, in every
batch, and for every step without having drawn the ones before.

**Drawing.** The distribution is accumulated in float64 over the vocabulary in its own order, and the token is the
one whose interval holds the uniform number. Chosen over Gumbel-max because it needs one random number a row and
step instead of one per vocabulary entry (150,000 for Qwen), and over an order sorted by probability because there
near-ties swap places under rounding and move large pieces of the distribution. Float32 sums over such a
vocabulary would be off by 1e-5 and, added in parallel, not even rising; where a device has no float64 (Apple's
mps) they are used all the same.
"""

from __future__ import annotations

from typing import Any

from plugins.api import Sampling

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniforms(seeds: Any, first_step: int, steps: int) -> Any:
    """Uniform numbers in [0, 1) for steps `first_step`..: int64 seeds [R] -> float64 [R, steps] (53 random bits)."""
    import torch

    # The state of step t is seed + (t + 1) * GOLDEN modulo 2**64; int64 wraps the same way as uint64.
    advance = [_signed((step + 1) * _GOLDEN) for step in range(first_step, first_step + steps)]
    state = seeds[:, None] + torch.tensor(advance, dtype=torch.int64, device=seeds.device)
    state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
    state = state ^ _shift_right(state, 31)
    return _shift_right(state, 11).to(_real(seeds.device)) * 2.0**-53


def choose(logits: Any, sampling: Sampling, uniform: Any) -> tuple[Any, Any]:
    """Draw the next token of every row: logits [R, V], uniform [R] -> (token ids [R], whether usable [R]).

    Temperature first, then top-k, then top-p, as transformers and vLLM order them; temperature 0 takes the largest
    logit. A row whose logits are not finite numbers (a diverged model) is not usable and gets token 0.
    """
    logits = logits.float()
    usable = logits.amax(-1).isfinite()  # NaN wins every maximum, so one reduction finds both NaN and infinity
    if sampling.temperature == 0:
        return logits.argmax(-1).where(usable, 0), usable
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = _top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = _top_p(logits, sampling.top_p)
    return invert(logits.softmax(-1), uniform).where(usable, 0), usable


def invert(probabilities: Any, uniform: Any) -> Any:
    """The token whose interval of the cumulative distribution holds `uniform`: [R, V], [R] -> [R].

    Never a token of probability 0: the first sum ABOVE the target belongs to a token that raised it.
    """
    import torch

    sums = probabilities.to(_real(probabilities.device)).cumsum(-1)
    total = sums[:, -1:]
    # Rounding may lift uniform * total to the total itself, which no sum exceeds.
    target = torch.minimum(uniform[:, None].to(sums.dtype) * total, torch.nextafter(total, torch.zeros_like(total)))
    # A row of NaN finds nothing and points past the end; the caller discards it, but it must be a valid index.
    return torch.searchsorted(sums, target, right=True).squeeze(1).clamp(max=probabilities.shape[1] - 1)


def _top_k(logits: Any, k: int) -> Any:
    """Keep the k largest, and what ties with the k-th: a tie must not be broken by an order of sorting."""
    smallest_kept = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def _top_p(logits: Any, p: float) -> Any:
    """Keep the smallest set of most likely tokens that holds probability p, and what ties with its last (nucleus
    sampling, arXiv 1904.09751)."""
    ordered = logits.sort(descending=True).values
    shares = ordered.softmax(-1).to(_real(logits.device))
    before = shares.cumsum(-1) - shares
    kept = (before < p).sum(-1, keepdim=True).clamp(min=1)
    smallest_kept = ordered.gather(-1, kept - 1)
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def _real(device: Any) -> Any:
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _shift_right(numbers: Any, bits: int) -> Any:
    """Logical shift: int64's own `>>` drags the sign along."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
