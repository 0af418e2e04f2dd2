"""Makes the embedded model `wordmath-1m` again, from random weights, on a CPU.

    python -m nsd.plugins.embedded.recipe --out DIR [--steps N] [--threads 1]

A Qwen3-type transformer of about one million parameters learns to solve `wordmath` problems. Its corpus differs from
the test split on purpose: nine of fourteen story families are rare in it, and so are long problems. So the base model
knows arithmetic and the answer format, solves about two test problems in five, and has something to learn from labeled
examples, from its own majority votes and from rewards. The corpus has none of the questions in the default pools of
the dataset (compared by question id; names and numbers aside, wordings recur).

Everything is seeded. Run twice on one machine with the same torch and threads, it writes the same bytes; on another
processor floating-point sums come in another order, and the weights are alike, not equal.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nsd.plugins.api import Question
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.datasets.wordmath_problems import even_mix, generate
from nsd.plugins.datasets.wordmath_stories import FAMILIES, Draw
from nsd.plugins.seeds import stream

SEED = 20
END, PAD = "<|endoftext|>", "<|pad|>"
# Words with their leading blank, digits one by one, anything else by the character.
SPLIT = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s"
# The same text as a plain prompt: a chat turn is its content and a line break, an answer ends the text.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
)

STEPS, BATCH, WARMUP = 700, 64, 20
MATRIX_RATE, OTHER_RATE = 5e-3, 3e-3  # of the layers' matrices (Muon) and of embeddings and norms (AdamW)
GIVEN_WEIGHT = 0.1  # of a token that is given (a question, a sum to work out) in the loss, beside 1 for an answer's
DRILLS = 0.3  # share of the texts that are plain arithmetic
COMMON = {"things", "money", "crowd", "rate", "packing"}
RARE_WEIGHT = 0.002
LENGTHS = {1: 0.4, 2: 0.4, 3: 0.17, 4: 0.03}

LEADS = ["Now", "Left", "Total", "Added", "Taken", "Each", "First", "Then", "Bags"]  # words before a calculation

Text = list[tuple[str, float]]  # pieces of one training text, each with its weight in the loss


def build_tokenizer() -> Any:
    """Byte-level tokens with every word of `wordmath` whole: any text goes in and comes back exactly."""
    problems = generate(stream(SEED, "tokenizer"), 40_000, even_mix((1, 1, 1, 1)))
    return tokenizer_of((f"{question.text}\n{question.solution}" for question in problems), SPLIT)


def tokenizer_of(corpus: Iterable[str], split: str) -> Any:
    """Byte-level tokens, with every part whole that `split` (an expression) finds in the texts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: dict[str, int] = {}
    for text in corpus:
        for word, _ in pre_tokenizer.pre_tokenize_str(text):
            counts[word] = counts.get(word, 0) + 1
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    common = sorted((word for word in counts if word not in alphabet), key=lambda word: (-counts[word], word))
    vocabulary = {token: index for index, token in enumerate([PAD, END, *alphabet, *common])}
    # Without merges a word is looked up whole (ignore_merges) and otherwise falls apart into its bytes.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )


def build_model(tokenizer: Any, seed: int) -> Any:
    """A Qwen3ForCausalLM with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def corpus_mix() -> dict[tuple[str, int], float]:
    """Weights by (family, steps): rare families and long problems hardly occur."""
    mix: dict[tuple[str, int], float] = {}
    for steps, weight in LENGTHS.items():
        able = {
            family: 1.0 if family in COMMON else RARE_WEIGHT for family in FAMILIES if family != "average" or steps > 1
        }
        total = sum(able.values())
        mix |= {(family, steps): weight * share / total for family, share in able.items()}
    return mix


def corpus(count: int) -> list[Question]:
    """The first `count` problems of the corpus, none of them in the dataset's default pools."""
    pools = Wordmath().pools()
    exclude = {question.id for question in [*pools.train, *(pools.test or [])]}
    return generate(stream(SEED, "corpus"), count, corpus_mix(), exclude)


def drill(draw: Draw) -> Text:
    """Eight calculations in the form of solution lines, with numbers like those of the stories."""
    text: Text = []
    for _ in range(8):
        operator = draw.pick("++--**/")
        if operator == "*":
            a, b = draw.pick([(draw.between(2, 12), draw.between(2, 60)), (draw.between(2, 240), draw.between(2, 4))])
            result = a * b
        elif operator == "/":
            b, result = draw.between(2, 9), draw.between(1, 99)
            a = b * result
        else:
            a = draw.pick([draw.between(2, 99), draw.between(2, 500)])
            b = draw.between(2, min(a, 200)) if operator == "-" else draw.between(2, 200)
            result = a - b if operator == "-" else a + b
        text += [(f"{draw.pick(LEADS)}: {a} {operator} {b} =", GIVEN_WEIGHT), (f" {result}\n", 1.0)]
    return text


def texts(count: int) -> list[Text]:
    """The first `count` texts of the corpus: stories and drills in random order."""
    draw = Draw(stream(SEED, "texts"))
    drilled = [draw.chance(DRILLS) for _ in range(count)]
    stories = iter(corpus(count - sum(drilled)))
    return [drill(draw) if is_drill else _story(next(stories)) for is_drill in drilled]


def _story(question: Question) -> Text:
    return [(f"{question.text}\n", GIVEN_WEIGHT), (f"{question.solution}{END}", 1.0)]


def batches(tokenizer: Any, written: Iterable[Text], batch: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (ids, mask, loss weights) of the texts, each [batch, length].

    Sixteen batches at a time are sorted by length, so that little of a batch is padding.
    """
    import torch

    rows = []
    for text in written:
        pieces = tokenizer([piece for piece, _ in text])["input_ids"]
        weights = [weight for ids, (_, weight) in zip(pieces, text, strict=True) for _ in ids]
        rows.append(([token for ids in pieces for token in ids], weights))
    order = torch.Generator().manual_seed(stream(SEED, "order"))
    for start in range(0, len(rows), 16 * batch):
        chunk = sorted(rows[start : start + 16 * batch], key=lambda row: len(row[0]))
        groups = [chunk[first : first + batch] for first in range(0, len(chunk), batch)]
        for index in torch.randperm(len(groups), generator=order).tolist():
            yield _tensors(groups[index], tokenizer.pad_token_id)


def _tensors(rows: list[tuple[list[int], list[float]]], pad_id: int) -> tuple[Any, Any, Any]:
    import torch

    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad_id] * (length - len(ids)) for ids, _ in rows])
    weights = torch.tensor([weights + [0.0] * (length - len(weights)) for _, weights in rows])
    return ids, (weights > 0).long(), weights


def train(
    model: Any, tokenizer: Any, steps: int, batch: int = BATCH, write: Callable[[int], list[Text]] = texts
) -> Iterator[tuple[int, float]]:
    """Train in place on `steps * batch` texts of `write`, yielding (step, loss) after each step.

    The learning rates end at zero. The matrices of the layers are trained by Muon (Jordan et al. 2024, as in torch),
    which needs less than half of the steps that AdamW does here.
    """
    import torch
    from torch.nn.functional import cross_entropy

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        (MATRIX_RATE, torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")),
        (OTHER_RATE, torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)),
    ]
    model.train()
    for step, (ids, mask, weights) in enumerate(batches(tokenizer, write(steps * batch), batch), start=1):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        wanted = weights[:, 1:].flatten()
        loss = (losses * wanted).sum() / wanted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for rate, optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(step / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield step, loss.item()
    model.eval()


def make(
    out: Path,
    steps: int = STEPS,
    threads: int = 1,
    tokenizer: Callable[[], Any] = build_tokenizer,
    write: Callable[[int], list[Text]] = texts,
    seed: int = SEED,
) -> None:
    """Write the model folder: weights, configs and tokenizer. The defaults make `wordmath-1m`."""
    import torch
    from transformers import GenerationConfig

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    words = tokenizer()
    model = build_model(words, stream(seed, "init"))
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters, {len(words)} tokens")
    start, recent = time.perf_counter(), 0.0
    for step, loss in train(model, words, steps, write=write):
        recent += loss
        if step % 50 == 0 or step == steps:
            print(f"step {step:5d}  loss {recent / 50:.4f}  {time.perf_counter() - start:5.0f} s", flush=True)
            recent = 0.0
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id
    )
    model.save_pretrained(out)
    words.save_pretrained(out)


def arguments(steps: int) -> argparse.Namespace:
    """What the command line says: the folder to write, steps, threads."""
    parser = argparse.ArgumentParser(description="Make an embedded model again.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=steps, help="optimizer steps (fewer for a trial)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what fixes the bytes")
    return parser.parse_args()


def main() -> None:
    given = arguments(STEPS)
    make(given.out, given.steps, given.threads)


if __name__ == "__main__":
    main()
