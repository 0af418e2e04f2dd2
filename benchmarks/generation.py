"""Generation: nsd's `hf` engine against transformers' own `generate`, on one model, in one process, in turn.

    OMP_NUM_THREADS=2 python -m benchmarks.generation [--model PATH] [--questions N] [--rounds N]

Peers: `generate` one prompt at a time with num_return_sequences=K (the loop of the published noisy-student code),
and `generate` on left-padded batches of prompts sorted by length. All three tokenize, sample K completions at
temperature 1 until the end token or the limit, and decode to text. Then the share of texts that change with the
engine's batch size, in float32 and bfloat16.

Limits: rates include prompts that a run meets by chance; the ratio is the figure to look at. The peers draw from
torch's global generator, so lengths agree on average, not one by one. CPU unless --device says otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import combinations

from nsd.plugins.api import Completion, ModelRef, Request, Sampling
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.models import load_model, resolve

PEER_BATCHES = (16, 64)  # prompts in a left-padded batch
INDEPENDENCE_BATCHES = (1, 7, 64)


def main() -> None:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:wordmath-1m")
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8, help="K, completions per question")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    ref = ModelRef(resolve(options.model))
    test = Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or []
    prompt = Wordmath.default_prompt
    requests = [Request(question.id, prompt.render(question)) for question in test]
    sampling = Sampling(options.samples, 1.0, options.max_tokens)
    print(
        f"generation, {options.model}, {len(requests)} questions x {sampling.n} samples, at most "
        f"{sampling.max_tokens} tokens, {options.rounds} rounds in turn, {torch.get_num_threads()} threads, "
        f"{options.device}",
        flush=True,
    )
    rates(ref, requests, sampling, options.rounds, options.device)
    independence(ref, requests, sampling, options.device)


def rates(ref: ModelRef, requests: list[Request], sampling: Sampling, rounds: int, device: str) -> None:
    """Samples and tokens a second of the engine and its peers, and the median ratio of rounds."""
    engine = HfEngine(HfEngine.Config(device=device))
    ways: dict[str, Callable[[list[Request]], tuple[int, int]]] = {
        "generate, one prompt at a time": Generate(ref, sampling, device, 1),
        **{f"generate, {size} prompts at a time": Generate(ref, sampling, device, size) for size in PEER_BATCHES},
        "engine hf": lambda some: count([one for shard in engine.generate(ref, some, sampling, 1) for one in shard]),
    }
    for way in ways.values():
        way(requests[:4])  # the first call sets up kernels
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor = dict.fromkeys(ways, 0.0)  # unlike wall time, hardly moved by what else the machine does
    totals: dict[str, tuple[int, int]] = dict.fromkeys(ways, (0, 0))
    for _ in range(rounds):
        for name, way in ways.items():
            started, processor_started = time.perf_counter(), time.process_time()
            samples, tokens = way(requests)
            seconds[name].append(time.perf_counter() - started)
            processor[name] += time.process_time() - processor_started
            totals[name] = (totals[name][0] + samples, totals[name][1] + tokens)
    for name in ways:
        spent, (samples, tokens) = sum(seconds[name]), totals[name]
        ratios = [peer / own for peer, own in zip(seconds[name], seconds["engine hf"], strict=True)]
        print(
            f"  {name:32} {samples / spent:7.0f} samples/s {tokens / spent:8.0f} tokens/s "
            f"({tokens / samples:.1f} tokens each)   engine is {statistics.median(ratios):.2f} times as fast, "
            f"in processor time {processor[name] / processor['engine hf']:.2f}",
            flush=True,
        )
    engine.close()


class Generate:
    """Transformers' `generate` on batches of `size` prompts; returns (samples, tokens with the end token)."""

    def __init__(self, ref: ModelRef, sampling: Sampling, device: str, size: int) -> None:
        self.model, self.tokenizer = load_model(ref, device)
        self.sampling, self.size = sampling, size

    def __call__(self, requests: list[Request]) -> tuple[int, int]:
        import torch

        ends = torch.tensor(self.tokenizer.eos_token_id)
        samples = tokens = 0
        prompts = sorted((str(request.prompt) for request in requests), key=len)
        for start in range(0, len(prompts), self.size):
            inputs = self.tokenizer(prompts[start : start + self.size], return_tensors="pt", padding=True)
            inputs = inputs.to(self.model.device)
            with torch.inference_mode():
                output = self.model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    do_sample=True,
                    temperature=self.sampling.temperature,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=self.sampling.max_tokens,
                    num_return_sequences=self.sampling.n,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            written = output[:, inputs["input_ids"].shape[1] :].cpu()
            self.tokenizer.batch_decode(written, skip_special_tokens=True)
            samples += len(written)
            ended = torch.isin(written, ends).int()
            tokens += int((ended.cumsum(1) - ended == 0).sum())  # up to and with the first end token
        return samples, tokens


def count(completions: list[Completion]) -> tuple[int, int]:
    """(Samples, tokens)."""
    return len(completions), sum(one.tokens for one in completions)


def independence(ref: ModelRef, requests: list[Request], sampling: Sampling, device: str) -> None:
    """How many texts differ between batch sizes, and how long the first common part is."""
    print("texts that differ between batch sizes of the engine, same seed")
    for dtype in ("float32", "bfloat16"):
        texts: dict[int, dict[tuple[str, int], str]] = {}
        tokens = 0
        for size in INDEPENDENCE_BATCHES:
            engine = HfEngine(HfEngine.Config(batch_size=size, device=device))
            shards = engine.generate(ModelRef(ref.path, dtype=dtype), requests, sampling, 1)
            found = [one for shard in shards for one in shard]
            tokens = sum(one.tokens for one in found)
            texts[size] = {(one.question_id, one.sample): one.text for one in found}
        for one, other in combinations(INDEPENDENCE_BATCHES, 2):
            differing = sum(texts[one][key] != texts[other][key] for key in texts[one])
            print(
                f"  {dtype:8} batch {one:2} and {other:2}: {differing} of {len(texts[one])} texts "
                f"({differing / len(texts[one]):.2%}; {differing / tokens:.1e} per token)",
                flush=True,
            )
        engine.close()


if __name__ == "__main__":
    main()
