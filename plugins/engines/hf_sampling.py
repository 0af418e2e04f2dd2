"""How the `hf` engine draws a token: a random stream per row, then a walk down a tree of probabilities.

**Randomness.** A row's random numbers are outputs of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started at the
row's seed; step t, level l of the walk takes output 16 t + l. A counter-based hash in 64-bit integers: the same on
every device, in every batch, and for every step without having drawn the ones before.

**Drawing.** The probabilities are summed in fours, the sums again in fours, up to the total; a draw walks down and
picks one of four children at each level with a random number of its own. It gives exactly the distribution, and a
rounding error in a logit moves only the choices on its way. The chance that the same random numbers pick another
token when the logits carry the rounding noise of another batch, computed at 855 positions of the embedded model
(no method can go below the total variation distance):

                                        float32   bfloat16
    total variation distance              9e-9      3.5e-5
    Gumbel-max                            1.1e-8    3.6e-5    a random number per vocabulary entry: 150,000 for Qwen
    this tree, in fours                   1.7e-8    5.1e-5
    inverse of the running sum            3.3e-7    7.4e-5    every boundary behind a change moves

So the tree has nearly the stability of Gumbel-max at the price of a dozen random numbers, and every sum is of
numbers of like size, which float32 does well (a running sum over 150,000 would need float64).
"""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import Sampling

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_FAN = 4
_PER_STEP = 16  # 4**16 tokens: more levels than any vocabulary needs


def levels(vocabulary: int) -> int:
    """How many choices among four lead to one of `vocabulary` tokens."""
    count = 0
    while vocabulary > 1:
        vocabulary = -(-vocabulary // _FAN)
        count += 1
    return count


def uniforms(seeds: Any, first_step: int, steps: int, count: int) -> Any:
    """Uniform numbers in [0, 1), `count` for each of `steps` steps: int64 seeds [R] -> float64 [R, steps, count].

    53 random bits each; 24 and float32 on Apple's mps, which has no float64.
    """
    import torch

    # State n is seed + (n + 1) * GOLDEN modulo 2**64; int64 wraps the same way as uint64.
    first = torch.arange(first_step, first_step + steps, device=seeds.device) * _PER_STEP
    numbers = (first[:, None] + torch.arange(count, device=seeds.device)).flatten()
    state = seeds[:, None] + (numbers + 1) * _signed(_GOLDEN)
    state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
    state = (state ^ _shift_right(state, 31)).view(len(seeds), steps, count)
    if seeds.device.type == "mps":
        return _shift_right(state, 40).to(torch.float32) * 2.0**-24
    return _shift_right(state, 11).to(torch.float64) * 2.0**-53


def shifted(seed: int, step: int) -> int:
    """The seed whose numbers at `step` are those of this seed at step 0: a row may begin at any step of a loop."""
    return _signed(seed - step * _PER_STEP * _GOLDEN)


def choose(logits: Any, sampling: Sampling, uniform: Any) -> tuple[Any, Any]:
    """Draw the next token of every row: logits [R, V], uniform [R, levels(V)] -> (token ids [R], usable [R]).

    Temperature first, then top-k, then top-p, as transformers and vLLM order them; temperature 0 takes the largest
    logit. A row whose logits are not finite numbers (a diverged model) is not usable and gets token 0.
    """
    logits = logits.float()
    largest = logits.amax(-1, keepdim=True)
    usable = largest.squeeze(-1).isfinite()  # NaN wins every maximum, so one reduction finds NaN and infinity
    if sampling.temperature == 0:
        return logits.argmax(-1).where(usable, 0), usable
    weights = logits - largest  # the one copy of rows x vocabulary; what follows happens in its place
    if sampling.temperature != 1:
        weights /= sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        least = least_kept(weights, sampling.top_k, sampling.top_p)
        weights.masked_fill_(weights < least, float("-inf"))
    return draw(weights.exp_(), uniform).where(usable, 0), usable


def least_kept(logits: Any, top_k: int, top_p: float) -> Any:
    """The least logit that top-k (0: none), then top-p leave in: [R, V] -> [R, 1]. What ties with it stays too.

    Top-k keeps the k largest: a tie must not be broken by an order of sorting. Top-p keeps, of these, the smallest set
    of most likely tokens that holds probability p (nucleus sampling, arXiv 1904.09751). The vocabulary is sorted only
    where there is top-p without top-k.
    """
    if not top_k:
        return _nucleus(logits.sort(descending=True).values, None, top_p)
    largest = logits.topk(min(top_k, logits.shape[-1])).values
    least = largest[:, -1:]
    if top_p >= 1:
        return least
    # Beyond the k largest there may be others as large as the last of them.
    further = (logits == least).sum(-1, keepdim=True) - (largest == least).sum(-1, keepdim=True)
    return _nucleus(largest, further, top_p)


def _nucleus(ordered: Any, further: Any, p: float) -> Any:
    """The least that top-p keeps of logits in descending order: [R, K] -> [R, 1]; `further` more tie with the last."""
    shares = ordered.softmax(-1)
    if further is not None:
        shares /= 1 + further * shares[:, -1:]
    before = shares.cumsum(-1).sub_(shares)
    kept = (before < p).sum(-1, keepdim=True).clamp(min=1)
    return ordered.gather(-1, kept - 1)


def draw(weights: Any, uniform: Any) -> Any:
    """Token i of row r with probability weights[r, i] / sum(weights[r]): [R, V], [R, levels(V)] -> [R].

    Never a token of weight 0, as long as one weight is positive.
    """
    import torch

    tree = [weights]
    while tree[-1].shape[1] > 1:
        short = -tree[-1].shape[1] % _FAN
        tree[-1] = torch.nn.functional.pad(tree[-1], (0, short)) if short else tree[-1]
        # Node j's children are j, j + width, j + 2 width, ...: whole stretches are added, not neighbours.
        tree.append(tree[-1].view(len(weights), _FAN, -1).sum(1))
    node = torch.zeros(len(weights), 1, dtype=torch.int64, device=weights.device)
    for level, parents in enumerate(reversed(tree[:-1])):
        width = parents.shape[1] // _FAN
        children = node + torch.arange(0, _FAN * width, width, device=weights.device)
        sums = parents.gather(1, children).to(uniform.dtype).cumsum(1)
        # A child is passed by when its sum does not exceed the target, so a child of weight 0 is never taken; the
        # target stays below the total, for uniform < 1. (A row of NaN passes none by; the caller discards it.)
        target = uniform[:, level, None] * sums[:, -1:]
        node = children.gather(1, (sums[:, :-1] <= target).sum(1, keepdim=True))
    return node.squeeze(1)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _shift_right(numbers: Any, bits: int) -> Any:
    """Logical shift: int64's own `>>` drags the sign along."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
