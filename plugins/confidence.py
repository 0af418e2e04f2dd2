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
# numpy's selection takes half the time of torch's in 833 entries (1.0 and 2.0 ms for 256 rows), and five times as long
# in 151,936.
SMALL_VOCABULARY = 4096
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
    if logits.device.type != "cpu" or vocabulary > SMALL_VOCABULARY:
        return logits.topk(count, sorted=False).values
    import numpy
    import torch

    found = numpy.partition(logits.detach().numpy(), vocabulary - count, axis=-1)
    return torch.from_numpy(found[..., vocabulary - count :])


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
