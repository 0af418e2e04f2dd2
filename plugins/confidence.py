"""How sure a model was of a text: from logits to numbers per token, and from these to one Confidence per completion.

    logprob, confidence = token_confidence(logits, tokens)      # of each token, tensors
    Confidence(...) = summary(logprobs, confidences)            # of a completion, arrays

All of it is of the model's own distribution, before temperature, top-k and top-p: the numbers of one model are on one
scale however it was sampled. Logarithms are natural. torch is not imported here: tensors bring their methods along.
In the `hf` engine they cost a few tokens in a hundred: 0.98 of the tokens per second of processor time without them
(embedded model, 16 questions x 8 samples, one thread, median of 7 rounds in turn, 0.85 to 1.02, on a busy machine).

**Windows.** DeepConf (Fu et al. 2025, arXiv 2508.15260) averages over windows of 2,048 tokens that overlap, one
starting at every token with 2,047 after it. In a text that has no four such windows' length (8,192 tokens) a window is
a quarter of the text, rounded up, which is our rule and not the paper's: it would see a short text as one window. The
lowest tenth of the windows is a tenth of their number rounded down, at least one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsd.plugins.data import Confidence

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

MOST_LIKELY = 20  # tokens whose log-probabilities make a token's confidence
# On a CPU they are looked for in the groups with the largest maxima: the 20 largest lie in 20 groups at most. 512 rows
# of 833 entries take 0.76 ms and not 1.75 (numpy's selection), 64 of 151,936 take 1.6 and not 5.8 (torch's; two cores).
SMALL_VOCABULARY = 4096
GROUP, LARGE_GROUP = 8, 128  # entries of a group in a small vocabulary, and in a large one
WINDOW = 2048  # tokens
WINDOWS_IN_A_TEXT = 4  # at least this many windows' length, else windows are shorter
LOWEST_SHARE = 10  # one in ten windows


def token_confidence(logits: Any, tokens: Any) -> tuple[Any, Any]:
    """Log-probability of each token, and DeepConf's confidence at its place: [..., V], [...] -> [...], [...].

    The confidence is minus the mean log-probability of the 20 most likely tokens (of all, where the vocabulary is
    smaller).
    """
    logits = logits.float()
    total = logits.logsumexp(-1)
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - total, total - _most_likely(logits).mean(-1)


def _most_likely(logits: Any) -> Any:
    """The 20 largest logits (all, where there are fewer), in any order: [..., V] -> [..., 20]."""
    vocabulary = logits.shape[-1]
    count = min(MOST_LIKELY, vocabulary)
    small = vocabulary <= SMALL_VOCABULARY
    groups = vocabulary // (GROUP if small else LARGE_GROUP)
    if logits.device.type != "cpu" or groups <= count:
        return logits.topk(count, sorted=False).values
    return _largest_in_strides(logits, groups, count) if small else _largest_in_stretches(logits, groups, count)


def _largest_in_strides(logits: Any, groups: int, count: int) -> Any:
    """The same by groups of every `groups`th entry, whose maxima whole stretches give; numpy selects in few entries."""
    import numpy
    import torch

    def largest(values: Any, select: Any) -> Any:
        at = values.shape[-1] - count
        return torch.from_numpy(select(values.numpy(), at, axis=-1)[..., at:])

    logits = logits.detach()
    grouped = logits[..., : groups * GROUP].unflatten(-1, (GROUP, groups))
    places = largest(grouped.amax(-2), numpy.argpartition).unsqueeze(-2)
    found = grouped.gather(-1, places.expand(*places.shape[:-2], GROUP, count)).flatten(-2)
    return largest(torch.cat([found, logits[..., groups * GROUP :]], -1), numpy.partition)


def _largest_in_stretches(logits: Any, groups: int, count: int) -> Any:
    """The same by groups of neighbours."""
    import torch

    grouped = logits[..., : groups * LARGE_GROUP].unflatten(-1, (groups, LARGE_GROUP))
    places = grouped.amax(-1).topk(count, sorted=False).indices.unsqueeze(-1)
    found = grouped.gather(-2, places.expand(*places.shape[:-1], LARGE_GROUP)).flatten(-2)
    return torch.cat([found, logits[..., groups * LARGE_GROUP :]], -1).topk(count, sorted=False).values


def entropy_and_certainty(logits: Any) -> tuple[Any, Any]:
    """Entropy of each distribution, and logsumexp(logits) minus the mean logit: [..., V] -> [...], [...]."""
    logits = logits.float()
    total = logits.logsumexp(-1)
    expected = (logits.softmax(-1) * logits).sum(-1)
    return total - expected, total - logits.mean(-1)


def window_length(tokens: int) -> int:
    """Tokens of a window in a text of so many tokens: 2,048, or a quarter of a shorter text, rounded up."""
    return min(WINDOW, -(-tokens // WINDOWS_IN_A_TEXT))


def summary(logprobs: NDArray[numpy.floating[Any]], confidences: NDArray[numpy.floating[Any]]) -> Confidence | None:
    """One completion's Confidence from the two numbers of each of its tokens [T], [T]; None where it has no token."""
    import numpy

    count = len(logprobs)
    if count == 0:
        return None
    window = window_length(count)
    drawn, sure = (_window_means(numpy.asarray(one, dtype=numpy.float64), window) for one in (logprobs, confidences))
    lowest = numpy.sort(sure)[: max(1, len(sure) // LOWEST_SHARE)]
    return Confidence(
        logprob=float(numpy.mean(logprobs, dtype=numpy.float64)),
        logprob_lowest=float(drawn.min()),
        mean=float(numpy.mean(confidences, dtype=numpy.float64)),
        tail=float(sure[-1]),
        bottom=float(lowest.mean()),
        lowest=float(lowest[0]),
    )


def _window_means(values: NDArray[numpy.float64], window: int) -> NDArray[numpy.float64]:
    """Mean of every run of `window` values: [T] -> [T - window + 1]."""
    import numpy

    sums = numpy.concatenate([[0.0], values.cumsum()])
    means: NDArray[numpy.float64] = (sums[window:] - sums[:-window]) / window
    return means
