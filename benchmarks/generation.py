"""Generation: nsd's `hf` engine against transformers' own `generate`, on one model, in one process, in turn.

    OMP_NUM_THREADS=2 python -m benchmarks.generation [--model NAME ...] [--questions N] [--rounds N] [--independence]

Models: the embedded one (1 M parameters), and `5m` and `30m`, made on the fly with random weights, in which so many
tokens end a text that lengths are as those of the embedded model. Peers: `generate` one prompt at a time with
num_return_sequences=K (the loop of the published noisy-student code, on every eighth question), and `generate` on
left-padded batches of prompts sorted by length, at the batch size that a search finds quickest. All tokenize, sample K
completions at temperature 1 until an end token or the limit, and decode to text. Tokens and the share of texts that
end by themselves stand beside each rate: both sides do the same kind of work.

`bare forward passes` is the limit: the forward passes that the engine makes, of the same shapes in the same order, with
nothing drawn, stopped, copied or decoded. With --independence, the share of texts that change with the engine's batch
size, in float32 and bfloat16.

Limits: rates include prompts that a run meets by chance; the ratio is the figure to look at. The peers draw from
torch's global generator, so lengths agree on average, not one by one. CPU unless --device says otherwise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from nsd.plugins.api import Completion, ModelRef, Request, Sampling, StopReason
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines import hf
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.models import load_model, resolve

BUILTIN = "builtin:wordmath-1m"
PEER_BATCHES = (8, 16, 32, 64)  # prompts in a left-padded batch
SEARCHED = 64  # questions of the search for the best of them
INDEPENDENCE_BATCHES = (1, 7, 64)
ENGINE = "engine hf"
LIMIT = "bare forward passes"
# Layers, width, width inside, heads, heads of keys and values, their size.
MADE = {"5m": (6, 256, 768, 8, 4, 32), "30m": (9, 512, 1536, 8, 4, 64)}
END_EVERY = 30  # one token in so many ends a text of a model with random weights


@dataclass(frozen=True)
class Count:
    """What a way of generating has written; `stopped` by an end token."""

    samples: int
    tokens: int
    stopped: int


def main() -> None:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[BUILTIN, *MADE])
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--samples", type=int, default=8, help="K, completions per question")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--independence", action="store_true")
    options = parser.parse_args()

    test = Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or []
    prompt = Wordmath.default_prompt
    requests = [Request(question.id, prompt.render(question)) for question in test]
    sampling = Sampling(options.samples, 1.0, options.max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model:
            ref = ModelRef(str(made(name, Path(folder) / name)) if name in MADE else resolve(name))
            print(
                f"generation, {name}, {len(requests)} questions x {sampling.n} samples, at most "
                f"{sampling.max_tokens} tokens, {options.rounds} rounds in turn, {torch.get_num_threads()} threads, "
                f"{options.device}, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            rates(ref, requests, sampling, options.rounds, options.device)
            if options.independence:
                independence(ref, requests, sampling, options.device)


def made(name: str, folder: Path) -> Path:
    """A Qwen3 model of a size with random weights and the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    layers, width, inside, heads, pairs, size = MADE[name]
    tokenizer = AutoTokenizer.from_pretrained(resolve(BUILTIN))
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inside,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        head_dim=size,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    ends = [tokenizer.eos_token_id, *range(10, len(tokenizer), END_EVERY)]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rates(ref: ModelRef, requests: list[Request], sampling: Sampling, rounds: int, device: str) -> None:
    """Samples and tokens a second of the engine, its peers and its limit, and the median ratio of rounds."""
    engine = HfEngine(HfEngine.Config(device=device))
    sizes = {size: Generate(ref, sampling, device, size) for size in (1, *PEER_BATCHES)}
    best = quickest(sizes, requests[:SEARCHED])

    def drawn(some: list[Request]) -> Count:
        return count([one for shard in engine.generate(ref, some, sampling, 1) for one in shard])

    drawn(requests[:4])  # the first call sets up kernels, and loads the model
    assert hf._last is not None
    limit = Bare(hf._last.loaded.model, lambda: drawn(requests))
    ways: dict[str, Callable[[], Count]] = {
        "generate, one prompt at a time": lambda: sizes[1](requests[::8]),
        f"generate, {best} prompts at a time": lambda: sizes[best](requests),
        ENGINE: lambda: drawn(requests),
        LIMIT: limit,
    }
    # Wall time, and processor time: the latter is hardly moved by what else the machine does.
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    found: dict[str, Count] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            started, processor_started = time.perf_counter(), time.process_time()
            found[name] = way()
            spent = (time.perf_counter() - started, time.process_time() - processor_started)
            seconds[name].append((spent[0] / found[name].samples, spent[1] / found[name].samples))
    for name, made_by in found.items():
        per_sample = statistics.median(wall for wall, _ in seconds[name])
        both = zip(seconds[name], seconds[ENGINE], strict=True)
        ratios = [(peer[0] / own[0], peer[1] / own[1]) for peer, own in both]
        print(
            f"  {name:32} {1 / per_sample:7.0f} samples/s {made_by.tokens / made_by.samples / per_sample:8.0f} "
            f"tokens/s ({made_by.tokens / made_by.samples:.1f} tokens each, "
            f"{made_by.stopped / made_by.samples:.0%} stopped)   engine is "
            f"{statistics.median(wall for wall, _ in ratios):.2f} times as fast, in processor time "
            f"{statistics.median(processor for _, processor in ratios):.2f}",
            flush=True,
        )
    engine.close()


def quickest(sizes: dict[int, Generate], requests: list[Request]) -> int:
    """The batch size at which `generate` takes the least processor time."""
    spent = {}
    for size in PEER_BATCHES:
        sizes[size](requests[:4])
        started = time.process_time()
        sizes[size](requests)
        spent[size] = time.process_time() - started
    return min(spent, key=lambda size: spent[size])


class Bare:
    """The forward passes of a run, of the same shapes in the same order, and nothing else."""

    def __init__(self, model: Any, run: Callable[[], Count]) -> None:
        self.model, self.shapes = model, list[tuple[int, int, int, bool]]()
        inner = model.forward

        def noted(input_ids: Any, attention_mask: Any, past_key_values: Any, **more: Any) -> Any:
            masked = attention_mask is not None and attention_mask.ndim == 4
            self.shapes.append((*input_ids.shape, past_key_values.get_seq_length(), masked))
            return inner(input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values, **more)

        model.forward = noted
        try:
            self.counted = run()
        finally:
            del model.forward

    def __call__(self) -> Count:
        import torch
        from transformers import DynamicCache

        from nsd.plugins.engines.hf_cache import make_cache
        from nsd.plugins.engines.hf_slots import SlotLayer, Window

        model = self.model
        rows = max(rows for rows, tokens, _, _ in self.shapes if tokens == 1)
        columns = max(past for _, _, past, _ in self.shapes) + 1
        with torch.inference_mode():
            ids = torch.zeros(rows, columns, dtype=torch.int64, device=model.device)
            mask = torch.zeros(rows, 1, 1, columns, dtype=model.dtype, device=model.device)
            first, window = make_cache(model.config), Window(0, 0)
            model(input_ids=ids[:, :1], past_key_values=first, use_cache=True)
            layers = [SlotLayer(layer, rows, columns, window) for layer in first.layers]
            buffers = [(layer.key_buffer, layer.value_buffer) for layer in layers]
            for count, tokens, past, masked in self.shapes:
                given = ids[:count, :tokens]
                positions = torch.arange(past, past + tokens, device=model.device).expand(count, -1)
                cache = make_cache(model.config)
                if past:
                    window.now = past
                    cache = DynamicCache(config=model.config)
                    cache.layers = layers
                    for layer, (keys, values) in zip(layers, buffers, strict=True):
                        layer.key_buffer, layer.value_buffer = keys[:count], values[:count]
                model(
                    input_ids=given,
                    attention_mask=mask[:count, :, :, : past + 1] if masked else None,
                    past_key_values=cache,
                    position_ids=positions,
                    use_cache=True,
                    logits_to_keep=1,
                )
        return self.counted


class Generate:
    """Transformers' `generate` on batches of `size` prompts; counts tokens with the end token."""

    def __init__(self, ref: ModelRef, sampling: Sampling, device: str, size: int) -> None:
        self.model, self.tokenizer = load_model(ref, device)
        self.sampling, self.size = sampling, size

    def __call__(self, requests: list[Request]) -> Count:
        import torch

        ends = torch.tensor(self.model.generation_config.eos_token_id)
        samples = tokens = stopped = 0
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
            stopped += int(ended.any(1).sum())
        return Count(samples, tokens, stopped)


def count(completions: list[Completion]) -> Count:
    """What an engine has written."""
    stopped = sum(one.stop_reason is StopReason.STOP for one in completions)
    return Count(len(completions), sum(one.tokens for one in completions), stopped)


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
