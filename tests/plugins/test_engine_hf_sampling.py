"""The random stream against pure Python, the filters against transformers' own, the draw against its definition."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nsd.plugins.api import Sampling
from nsd.plugins.engines.hf_sampling import choose, draw, least_kept, levels, uniforms
from nsd.plugins.seeds import stream

seeds = st.integers(0, 2**63 - 1)
unhurried = settings(deadline=None)  # the first call of a torch function is slow


def split_mix_64(seed: int, count: int) -> list[int]:
    """The published generator, in Python's unbounded integers."""
    mask, state, numbers = 2**64 - 1, seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_the_reference_gives_the_published_numbers() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert split_mix_64(1234567, 4) == published


@unhurried
@given(st.lists(seeds, min_size=1, max_size=4), st.integers(0, 50), st.integers(1, 5), st.integers(1, 16))
def test_uniform_numbers_are_those_of_split_mix_64(row_seeds: list[int], first: int, steps: int, count: int) -> None:
    found = uniforms(torch.tensor(row_seeds), first, steps, count)
    for seed, row in zip(row_seeds, found.tolist(), strict=True):
        numbers = [(z >> 11) * 2.0**-53 for z in split_mix_64(seed, (first + steps) * 16)]
        assert row == [numbers[step * 16 : step * 16 + count] for step in range(first, first + steps)]


def test_the_stream_of_a_completion_is_these_numbers() -> None:
    # Exact: integers mixed, then 53 bits of them. Whatever changes one changes every text there is.
    found = uniforms(torch.tensor([stream(42, "0123456789abcdef", 0), 7]), 0, 2, 3)
    assert found.tolist() == [
        [
            [0.6788815566975726, 0.5225704417374917, 0.19451491146242794],
            [0.04964944770075308, 0.6955323883455226, 0.04778836533454034],
        ],
        [
            [0.3898297483912715, 0.01678829452815611, 0.9007606806068834],
            [0.879613697627817, 0.32636130155374277, 0.6191206011686624],
        ],
    ]


def test_the_same_numbers_draw_these_tokens() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.5, -1.0, 3.0, 0.25, 1.5, 2.5, -0.5]]).repeat(8, 1)
    rows = torch.tensor([stream(1, "q", sample) for sample in range(8)])
    block = uniforms(rows, 0, 1, levels(10))[:, 0]
    drawn = {}
    for name, sampling in {
        "all": Sampling(1, 1.0, 1),
        "warm": Sampling(1, 2.0, 1),
        "top_k": Sampling(1, 1.0, 1, top_k=3),
        "top_p": Sampling(1, 1.0, 1, top_p=0.5),
        "greedy": Sampling(1, 0.0, 1),
    }.items():
        tokens, usable = choose(logits, sampling, block)
        assert usable.all()
        drawn[name] = tokens.tolist()
    assert drawn == {
        "all": [8, 5, 7, 5, 3, 8, 5, 8],
        "warm": [8, 1, 6, 5, 3, 7, 7, 7],
        "top_k": [8, 5, 5, 5, 5, 8, 5, 8],
        "top_p": [8, 5, 8, 5, 5, 8, 8, 8],
        "greedy": [5] * 8,
    }


def test_uniform_numbers_are_uniform_within_and_across_streams() -> None:
    row_seeds = torch.tensor([stream(42, f"question{index}", sample) for index in range(500) for sample in range(4)])
    block = uniforms(row_seeds, 0, 20, 5).flatten(1)
    for numbers in (block.flatten(), block[:, 0], block[0]):
        cells = 100 if len(numbers) > 1000 else 10
        counts = torch.histc(numbers, bins=cells, min=0, max=1)
        assert chisquare(counts.numpy()).pvalue > 0.001
    for one, other in ((block[:, :-1], block[:, 1:]), (block[:-1], block[1:])):  # next step, next sample
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 4 / one.numel() ** 0.5


@given(st.integers(1, 300_000))
def test_there_are_as_many_levels_as_the_vocabulary_needs(vocabulary: int) -> None:
    assert 4 ** levels(vocabulary) >= vocabulary
    assert vocabulary == 1 or 4 ** (levels(vocabulary) - 1) < vocabulary


almost_one = st.just(1 - 2.0**-53)


@unhurried
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(2.0**-100, 1, width=32)), min_size=1, max_size=70).filter(any),
    st.lists(st.one_of(almost_one, st.just(0.0), st.floats(0, 1, exclude_max=True)), min_size=4, max_size=4),
)
def test_a_draw_never_takes_an_impossible_token(weights: list[float], uniform: list[float]) -> None:
    numbers = torch.tensor([uniform[: levels(len(weights))]], dtype=torch.float64)
    assert weights[int(draw(torch.tensor([weights]), numbers))] > 0


def test_every_token_is_drawn_as_often_as_its_weight_says() -> None:
    weights = torch.tensor([3, 0, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 0, 3, 2]).double()
    rows = 100_000
    numbers = uniforms(torch.arange(1, rows + 1), 5, 1, levels(len(weights)))[:, 0]
    counts = torch.bincount(draw(weights.expand(rows, -1), numbers), minlength=len(weights))
    assert counts[1] == counts[14] == 0
    possible = weights > 0
    assert chisquare(counts[possible].numpy(), (weights / weights.sum() * rows)[possible].numpy()).pvalue > 0.01


def test_rounding_noise_rarely_changes_a_draw() -> None:
    """The reason for the tree: noise in the logits changes little more than it must (see hf_sampling)."""
    generator = torch.Generator().manual_seed(0)
    rows, vocabulary = 20_000, 1000
    logits = torch.randn(1, vocabulary, generator=generator) * 2
    noisy = logits + torch.randn(rows, vocabulary, generator=generator) * 1e-3
    numbers = uniforms(torch.arange(1, rows + 1), 0, 1, levels(vocabulary))[:, 0]
    changed = draw(logits.exp().expand(rows, -1), numbers) != draw(noisy.exp(), numbers)
    distance = (logits.softmax(-1) - noisy.softmax(-1)).abs().sum(-1).mean() / 2
    assert 0 < changed.float().mean() < 5 * float(distance)


@unhurried
# p beyond .999 is below what a float32 sum of probabilities can tell from 1.
@given(st.integers(0, 2**31), st.integers(1, 30), st.floats(0.05, 0.999), st.floats(0.1, 3))
def test_filters_keep_what_transformers_keeps(seed: int, k: int, p: float, temperature: float) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(4, 20, generator=torch.Generator().manual_seed(seed)) * 3 / temperature
    top_k = TopKLogitsWarper(min(k, 20))(None, logits)
    for top_p, expected in ((1.0, top_k), (p, TopPLogitsWarper(p)(None, top_k))):
        assert torch.equal(logits >= least_kept(logits, k, top_p), expected.isfinite())
    assert torch.equal(logits >= least_kept(logits, 0, p), TopPLogitsWarper(p)(None, logits).isfinite())


def test_filters_keep_both_of_a_tie() -> None:
    tied = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    for top_k, top_p in ((2, 1.0), (0, 0.7), (2, 0.7)):
        assert (tied >= least_kept(tied, top_k, top_p)).tolist() == [[True, True, True, False]]


def test_top_p_counts_what_ties_with_the_last_of_the_k() -> None:
    """Shares .5, .25, .25 by hand: of the first two alone .5 of .75 would be two thirds, enough for .6."""
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.001]]).log()
    assert (logits >= least_kept(logits, 2, 0.6)).tolist() == [[True, True, True, False]]
    assert (logits >= least_kept(logits, 2, 0.4)).tolist() == [[True, False, False, False]]


# --------------------------------------------------------------------------- nothing but the definition


def plainly(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> torch.Tensor:
    """Tokens by the definition: every filter over the whole sorted vocabulary, a copy at each step."""
    logits = (logits.float() - logits.float().amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k:
        ordered = logits.sort(descending=True).values
        least = ordered[:, min(sampling.top_k, logits.shape[-1]) - 1, None]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered = logits.sort(descending=True).values
        shares = ordered.softmax(-1)
        kept = (shares.cumsum(-1) - shares < sampling.top_p).sum(-1, keepdim=True).clamp(min=1)
        logits = logits.masked_fill(logits < ordered.gather(-1, kept - 1), float("-inf"))
    return draw(logits.exp(), uniform)


@unhurried
@given(
    st.integers(0, 2**31),
    st.integers(1, 3000),
    st.sampled_from([torch.float32, torch.bfloat16]),  # with 8 bits many logits are equal
    st.sampled_from([0.3, 1.0, 1.7]),
    st.sampled_from([0, 1, 2, 20, 50, 10_000]),
    st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.999, 1.0]),
)
def test_draws_are_those_of_the_definition(
    seed: int, vocabulary: int, dtype: torch.dtype, temperature: float, top_k: int, top_p: float
) -> None:
    logits = (torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)
    before = logits.clone()
    numbers = uniforms(torch.arange(seed, seed + 8), 3, 1, levels(vocabulary))[:, 0]
    sampling = Sampling(1, temperature, 1, top_p=top_p, top_k=top_k)
    tokens, usable = choose(logits, sampling, numbers)
    assert torch.equal(tokens, plainly(before, sampling, numbers)) and bool(usable.all())
    assert torch.equal(logits, before), "the model's logits are still wanted"


def test_no_sort_where_none_is_needed() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Sorts(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            sorted_by.add(str(function).split(".")[1])
            return function(*args, **(kwargs or {}))

    logits, numbers, found = torch.randn(2, 500), torch.full((2, levels(500)), 0.5).double(), {}
    for name, sampling in {
        "temperature": Sampling(1, 0.7, 1),
        "top_k": Sampling(1, 0.7, 1, top_k=20),
        "both": Sampling(1, 0.7, 1, top_k=20, top_p=0.9),
        "top_p": Sampling(1, 0.7, 1, top_p=0.9),
    }.items():
        sorted_by: set[str] = set()
        with Sorts():
            choose(logits, sampling, numbers)
        found[name] = sorted_by & {"sort", "topk"}
    assert found == {"temperature": set(), "top_k": {"topk"}, "both": {"topk"}, "top_p": {"sort"}}


def test_temperature_and_filters_shape_the_draw() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]]).expand(20_000, -1)
    numbers = uniforms(torch.arange(1, 20_001), 0, 1, levels(4))[:, 0]
    tokens, usable = choose(logits, Sampling(1, 0.5, 1, top_k=3, top_p=0.98), numbers)
    assert bool(usable.all())
    share = torch.bincount(tokens, minlength=4) / 20_000
    kept = torch.tensor([-float("inf"), 6.0, 4.0, -float("inf")]).softmax(0)  # 1.6 % for token 0 lie beyond 98 %
    assert torch.allclose(share, kept, atol=0.01)
    assert share[0] == share[3] == 0


@unhurried
@given(st.sampled_from([0.0, 0.7]), st.sampled_from([float("nan"), float("inf")]))
def test_rows_that_are_not_finite_are_told_apart(temperature: float, bad: float) -> None:
    logits = torch.tensor([[0.0, 9.0, 1.0], [0.0, bad, 1.0]])
    tokens, usable = choose(logits, Sampling(1, temperature, 1, top_p=0.9, top_k=2), torch.full((2, 1), 0.5).double())
    assert usable.tolist() == [True, False]
    assert tokens.tolist() == [1, 0]
