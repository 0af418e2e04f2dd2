"""Makes the embedded model `wordmath-1m` again, from random weights, on a CPU.

    python -m plugins.embedded.recipe --out DIR [--steps N] [--threads 1]

A Qwen3-type transformer of about one million parameters learns to solve `wordmath` problems from a corpus made
on purpose unlike the test split: over half of the story families are absent from it, and long problems are rare. So the
base model knows arithmetic and the answer format, solves about every fourth test problem, and has something to
learn from labeled examples, from its own majority votes and from rewards. None of the questions in the default
pools of the dataset is in the corpus (compared by question id; names and numbers aside, wordings recur).

Everything is seeded. Run twice on one machine with the same torch and threads, it writes the same bytes; on another
processor floating-point sums come in another order, and the weights are alike, not equal.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plugins.api import Question
from plugins.datasets.wordmath import Wordmath, even_mix, generate
from plugins.datasets.wordmath_stories import FAMILIES
from plugins.seeds import stream

SEED = 20
END, PAD = "<|endoftext|>", "<|pad|>"
# Words with their leading blank, digits one by one, anything else by the character.
SPLIT = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s"
# The same text as a plain prompt: a chat turn is its content and a line break, an answer ends the text.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
)

STEPS, BATCH, LEARNING_RATE, WARMUP = 900, 64, 3e-3, 100
QUESTION_WEIGHT = 0.1  # of a question's token in the loss, beside 1 for a solution's
UNSEEN = {"backwards", "average", "seats", "parts", "recipe", "ages", "shopping", "compare"}

LENGTHS = {1: 0.4, 2: 0.4, 3: 0.17, 4: 0.03}


def build_tokenizer() -> Any:
    """Byte-level tokens with every word of `wordmath` whole: any text goes in and comes back exactly."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: dict[str, int] = {}
    for question in generate(stream(SEED, "tokenizer"), 40_000, even_mix((1, 1, 1, 1))):
        for word, _ in pre_tokenizer.pre_tokenize_str(f"{question.text}\n{question.solution}"):
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
    """Weights by (family, steps): unseen families have none, long problems little."""
    mix: dict[tuple[str, int], float] = {}
    for steps, weight in LENGTHS.items():
        able = {family: 0.0 if family in UNSEEN else 1.0 for family in FAMILIES if family != "average" or steps > 1}
        total = sum(able.values())
        mix |= {(family, steps): weight * share / total for family, share in able.items()}
    return mix


def corpus(count: int) -> list[Question]:
    """The first `count` problems of the corpus, none of them in the dataset's default pools."""
    pools = Wordmath().pools()
    exclude = {question.id for question in [*pools.train, *(pools.test or [])]}
    return generate(stream(SEED, "corpus"), count, corpus_mix(), exclude)


def batches(tokenizer: Any, steps: int, batch: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (ids, mask, loss weights), each [batch, length], never the same question twice.

    Sixteen batches at a time are sorted by length, so that little of a batch is padding.
    """
    import torch

    questions = corpus(steps * batch)
    order = torch.Generator().manual_seed(stream(SEED, "order"))
    for start in range(0, len(questions), 16 * batch):
        chunk = sorted(questions[start : start + 16 * batch], key=lambda question: len(question.text))
        groups = [chunk[first : first + batch] for first in range(0, len(chunk), batch)]
        for index in torch.randperm(len(groups), generator=order).tolist():
            yield _tensors(tokenizer, groups[index])


def _tensors(tokenizer: Any, questions: list[Question]) -> tuple[Any, Any, Any]:
    import torch

    prompts = tokenizer([f"{question.text}\n" for question in questions])["input_ids"]
    targets = tokenizer([f"{question.solution}{END}" for question in questions])["input_ids"]
    rows = [(prompt + target, len(prompt)) for prompt, target in zip(prompts, targets, strict=True)]
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    weights = torch.zeros(len(rows), length)
    for row, (tokens, prompt_length) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(tokens)] = 1.0
        weights[row, :prompt_length] = QUESTION_WEIGHT
    return ids, (weights > 0).long(), weights


def train(model: Any, tokenizer: Any, steps: int, batch: int = BATCH) -> Iterator[tuple[int, float]]:
    """Train in place, yielding (step, loss) after each step; the learning rate ends at zero."""
    import torch
    from torch.nn.functional import cross_entropy

    decay = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups: list[Mapping[str, Any]] = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    model.train()
    for step, (ids, mask, weights) in enumerate(batches(tokenizer, steps, batch), start=1):
        rate = LEARNING_RATE * min(step / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        wanted = weights[:, 1:].flatten()
        loss = (losses * wanted).sum() / wanted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step, loss.item()
    model.eval()


def make(out: Path, steps: int = STEPS, threads: int = 1) -> None:
    """Write the model folder: weights, configs and tokenizer."""
    import torch
    from transformers import GenerationConfig

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, stream(SEED, "init"))
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    start, recent = time.perf_counter(), 0.0
    for step, loss in train(model, tokenizer, steps):
        recent += loss
        if step % 50 == 0 or step == steps:
            print(f"step {step:5d}  loss {recent / 50:.4f}  {time.perf_counter() - start:5.0f} s", flush=True)
            recent = 0.0
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded model again.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps (fewer for a trial)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what fixes the bytes")
    arguments = parser.parse_args()
    make(arguments.out, arguments.steps, arguments.threads)


if __name__ == "__main__":
    main()
