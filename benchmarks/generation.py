"""Generation: nsd's `hf` engine against transformers' own `generate`, on one model, in one process, in turn.

    OMP_NUM_THREADS=2 python -m benchmarks.generation [--model NAME ...] [--questions N] [--rounds N] [--independence]
                                                      [--engine JSON] [--device cpu] [--record]

Models: the embedded one (1 M parameters), and `5m`, `30m` and `500m`, made on the fly with random weights, in which so
many tokens end a text that lengths are as those of a model that learned. `500m` has the shape, the vocabulary and the
number type of Qwen2.5-0.5B; it is for a GPU and measured where it is named. Peers: `generate` one prompt at a time with
num_return_sequences=K (the loop of the published noisy-student code, on every eighth question), and `generate` on
left-padded batches of prompts sorted by length, at the batch size that a search finds quickest. All tokenize, sample K
completions at temperature 1 until an end token or the limit, and decode to text. Tokens and the share of texts that
end by themselves stand beside each rate: both sides do the same kind of work.

`bare forward passes` is the limit: the forward passes that the engine makes, of the same shapes in the same order, with
nothing drawn, stopped, copied or decoded. With --independence, the share of texts that change with the engine's batch
size, in float32 and bfloat16.

Limits: rates include prompts that a run meets by chance; the ratio is the figure to look at. The peers draw from
torch's global generator, so lengths agree on average, not one by one.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.clocks import Spent, clocked, median_ratio
from benchmarks.frame import Row, argument_parser, report, threads
from nsd.plugins.api import Completion, ModelRef, Request, Sampling, StopReason
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines import hf
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.models import load_model, resolve

BUILTIN = "builtin:wordmath-1m"
FEWEST, MOST = 8, 1024  # prompts in a left-padded batch of the peer
SEARCHED = 64  # questions of the search for the best number, or one batch
INDEPENDENCE_BATCHES = (1, 7, 64)
ENGINE = "engine hf"
LIMIT = "bare forward passes"


@dataclass(frozen=True)
class Made:
    """The shape of a model with random weights; one token in `end_every` ends a text."""

    layers: int
    width: int
    inside: int
    heads: int
    pairs: int  # heads of keys and values
    size: int  # of a head
    end_every: int = 30
    vocabulary: int | None = None  # that of the embedded model's tokenizer
    dtype: str = "float32"


MADE = {
    "5m": Made(6, 256, 768, 8, 4, 32),
    "30m": Made(9, 512, 1536, 8, 4, 64),
    "500m": Made(24, 896, 4864, 14, 2, 64, 150, 151_936, "bfloat16"),
}
FOR_PROCESSORS = ("5m", "30m")


@dataclass(frozen=True)
class Count:
    """What a way of generating has written; `stopped` by an end token."""

    samples: int
    tokens: int
    stopped: int

    def __str__(self) -> str:
        return f"{self.tokens / self.samples:.1f} tokens each, {self.stopped / self.samples:.0%} stopped"


def measure(options: argparse.Namespace) -> Iterator[Row | str]:
    """Every model against its peers."""
    import torch

    test = Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or []
    prompt = Wordmath.default_prompt
    requests = [Request(question.id, prompt.render(question)) for question in test]
    sampling = Sampling(options.samples, 1.0, options.max_tokens)
    yield (
        f"{len(requests)} questions x {sampling.n} samples of at most {sampling.max_tokens} tokens, {options.rounds} "
        f"rounds in turn, {threads(torch.get_num_threads())}."
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model:
            ref = ModelRef(str(made(name, Path(folder) / name)) if name in MADE else resolve(name))
            yield from rates(name, ref, requests, sampling, options)
            if options.independence:
                yield from independence(name, ref, requests, sampling, options.device)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--model", nargs="+", default=[BUILTIN, *FOR_PROCESSORS])
    parser.add_argument("--engine", type=json.loads, default={}, help="fields of the engine, as JSON")
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--samples", type=int, default=8, help="K, completions per question")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--independence", action="store_true")
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers"))


def made(name: str, folder: Path) -> Path:
    """A Qwen3 model of a size with random weights and the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    shape = MADE[name]
    tokenizer = AutoTokenizer.from_pretrained(resolve(BUILTIN))
    vocabulary = len(tokenizer) if shape.vocabulary is None else shape.vocabulary
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inside,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.pairs,
        head_dim=shape.size,
        max_position_embeddings=2048,
        tie_word_embeddings=shape.vocabulary is not None,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).to(getattr(torch, shape.dtype))
    ends = [tokenizer.eos_token_id, *range(10, vocabulary, shape.end_every)]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if shape.vocabulary is not None:
        fill(folder / "tokenizer.json", vocabulary)
    return folder


def fill(file: Path, vocabulary: int) -> None:
    """Give a tokenizer's ids up to `vocabulary` a text each."""
    kept = json.loads(file.read_text())
    words = kept["model"]["vocab"]
    words |= {f"<{number}>": number for number in range(max(words.values()) + 1, vocabulary)}
    file.write_text(json.dumps(kept))


def rates(
    title: str, ref: ModelRef, requests: list[Request], sampling: Sampling, options: argparse.Namespace
) -> Iterator[Row]:
    """Samples a second of the engine, its peers and its limit, and the median ratios of rounds."""
    device = options.device
    engine = HfEngine(HfEngine.Config(device=device, **options.engine))
    loop = Generate(ref, sampling, device, 1)
    batched = quickest(loop, requests, device)

    def drawn(some: list[Request]) -> Count:
        return count([one for shard in engine.generate(ref, some, sampling, 1) for one in shard])

    drawn(requests[:4])  # the first call sets up kernels, and loads the model
    assert hf._last is not None
    ways: dict[str, Callable[[], Count]] = {
        "`generate`, one prompt at a time": partial(loop, requests[::8]),
        f"`generate` at its best batch size, {batched.size} prompts": partial(batched, requests),
        ENGINE: partial(drawn, requests),
    }
    if not options.engine:  # a static cache has other shapes, and compiled steps call no `forward`
        ways[LIMIT] = Bare(hf._last.loaded.model, partial(drawn, requests))
    found: dict[str, list[tuple[Count, Spent]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            found[name].append(clocked(way))
    engine.close()
    walls = {name: [made_by.samples / spent.wall for made_by, spent in runs] for name, runs in found.items()}
    processors = {name: [made_by.samples / spent.processor for made_by, spent in runs] for name, runs in found.items()}
    own = found[ENGINE][-1][0]
    for name in ways:
        if name != ENGINE:
            yield Row(
                ", ".join([f"completions, K = {sampling.n}, {title}", *map(field, options.engine.items())]),
                name,
                "samples/s",
                statistics.median(walls[ENGINE]),
                statistics.median(walls[name]),
                median_ratio(walls[ENGINE], walls[name]),
                str(own) if name == LIMIT else f"{own}; the peer's {found[name][-1][0]}",
                median_ratio(processors[ENGINE], processors[name]),
            )


def field(given: tuple[str, object]) -> str:
    """A field of the engine, as a spec has it."""
    name, value = given
    return f"{name}: {json.dumps(value)}"


def quickest(loop: Generate, requests: list[Request], device: str) -> Generate:
    """`generate` at the batch size that takes the least time: sizes are doubled until one is a third slower."""
    spent: dict[int, float] = {}
    size = FEWEST
    while size <= MOST and (size == FEWEST or size <= len(requests)):
        one = loop.of(size)
        one(requests[:4])
        some = requests[: max(SEARCHED, size)]
        spent[size] = clocked(partial(one, some))[1].cost(device) / len(some)
        if spent[size] > 4 / 3 * min(spent.values()):
            break
        size *= 2
    return loop.of(min(spent, key=lambda size: spent[size]))


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
            ids.cpu()  # a GPU has finished
        return self.counted


class Generate:
    """Transformers' `generate` on batches of `size` prompts; counts tokens with the end token."""

    def __init__(self, ref: ModelRef, sampling: Sampling, device: str, size: int) -> None:
        self.model, self.tokenizer = load_model(ref, device)
        self.sampling, self.size = sampling, size

    def of(self, size: int) -> Generate:
        """The same model with batches of another size."""
        other = copy.copy(self)
        other.size = size
        return other

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


def independence(title: str, ref: ModelRef, requests: list[Request], sampling: Sampling, device: str) -> Iterator[str]:
    """How many texts differ between batch sizes, and how long the first common part is."""
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
            yield (
                f"{title}, {dtype}, same seed, batches of {one} and of {other}: {differing} of {len(texts[one])} texts "
                f"differ ({differing / len(texts[one]):.2%}; {differing / tokens:.1e} per token)."
            )
        engine.close()


if __name__ == "__main__":
    sys.exit(main())
