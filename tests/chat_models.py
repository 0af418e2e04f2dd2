"""Tiny models with the tokenizers of families that people train: `make_chat_model("llama3", folder)`.

Each tokenizer is a byte-level BPE learned from a few lines, with the special tokens of its family in their roles and a
template in the form that the family documents. What a family has by the way it is published:

    qwen2.5         <|im_end|> ends turns and texts, <|endoftext|> pads; the generation config lists both ends
    qwen2.5-base    the same template, but texts end with <|endoftext|>, which pads too and is the only end listed
    qwen3           as qwen2.5; thoughts stand in <think> (no special tokens), and enable_thinking: false closes one
    llama3          the tokenizer puts <|begin_of_text|> in front and so does the template; no pad token
    olmo2           <|endoftext|> begins chats and ends them, <|pad|> pads, roles are plain text
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINES = ["Add: 1+7? that makes 8", "user assistant system", "Question? The answer is 42.", "#### 18\n\n"] * 4

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe of help.<|im_end|>\n{% endif %}" + CHATML
)  # it never goes without a system message
QWEN3 = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}"
    "{% set parts = message.content.split('</think>') %}"
    "{% set thought = parts[0].replace('<think>', '').strip('\n') if parts | length > 1 else '' %}"
    "{% if loop.last or thought %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ parts[-1].lstrip('\n') }}"
    "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
OLMO2 = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if message.role != 'assistant' or not loop.last %}{{ '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """`asked` is the chat prompt for the user message `Add: 0+0?`, written out; `end` what ends its answer."""

    model: str
    special: tuple[str, ...]
    template: str
    eos: str
    pad: str | None
    ends: tuple[str, ...]  # of the generation config
    asked: str
    end: str
    bos: str | None = None
    bos_added: bool = False
    added: tuple[str, ...] = ()  # tokens of their own that are not special


_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN25_ASKED = (
    "<|im_start|>system\nBe of help.<|im_end|>\n<|im_start|>user\nAdd: 0+0?<|im_end|>\n<|im_start|>assistant\n"
)
_QWEN25_ENDS = ("<|im_end|>", "<|endoftext|>")
_LLAMA_TURN = ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>")
_LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", *_LLAMA_TURN)
FAMILIES = {
    "qwen2.5": Family("Qwen2", _QWEN, QWEN25, "<|im_end|>", "<|endoftext|>", _QWEN25_ENDS, _QWEN25_ASKED, "<|im_end|>"),
    "qwen2.5-base": Family(
        "Qwen2", _QWEN, QWEN25, "<|endoftext|>", "<|endoftext|>", ("<|endoftext|>",), _QWEN25_ASKED, "<|im_end|>"
    ),
    "qwen3": Family(
        *("Qwen3", _QWEN, QWEN3, "<|im_end|>", "<|endoftext|>", _QWEN25_ENDS),
        asked="<|im_start|>user\nAdd: 0+0?<|im_end|>\n<|im_start|>assistant\n",
        end="<|im_end|>",
        added=("<think>", "</think>"),
    ),
    "llama3": Family(
        *("Llama", _LLAMA, LLAMA3, "<|eot_id|>", None, ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")),
        asked="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nAdd: 0+0?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
        bos="<|begin_of_text|>",
        bos_added=True,
    ),
    "olmo2": Family(
        *("Olmo2", ("<|endoftext|>", "<|pad|>"), OLMO2, "<|endoftext|>", "<|pad|>", ("<|endoftext|>",)),
        asked="<|endoftext|><|user|>\nAdd: 0+0?\n<|assistant|>\n",
        end="<|endoftext|>",
        bos="<|endoftext|>",
    ),
}


def make_chat_tokenizer(name: str) -> Any:
    """The tokenizer of a family, made small: 300 tokens of text and its special ones behind them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.added])
    if family.bos_added:
        assert family.bos is not None
        number = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = TemplateProcessing(single=f"{family.bos} $A", special_tokens=[(family.bos, number)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=family.eos,
        pad_token=family.pad,
        bos_token=family.bos,
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def make_chat_model(name: str, folder: str | Path, seed: int = 0, dtype: str = "float32") -> Path:
    """Write a random model of a family (about 60,000 parameters) with its tokenizer; returns the folder."""
    import torch
    import transformers

    family, folder, tokenizer = FAMILIES[name], Path(folder), make_chat_tokenizer(name)
    known: Callable[[str], int] = tokenizer.convert_tokens_to_ids
    config = getattr(transformers, f"{family.model}Config")(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{family.model}ForCausalLM")(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "generation_config.json"
    listed = {**json.loads(path.read_text()), "eos_token_id": [known(token) for token in family.ends]}
    path.write_text(json.dumps(listed))
    return folder
