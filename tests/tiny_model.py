"""A real but tiny model for tests: `make_tiny_model(folder)` writes a random Qwen3 checkpoint with its tokenizer.

The tokenizer works on bytes, so any text goes in and valid UTF-8 comes back exactly; it has an end token, a pad
token of its own and a chat template. The weights are random, so what it writes is noise (decoded with U+FFFD
where the bytes are no text), but its output depends on the prompt and it ends by itself after some dozens of tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAD, END, TURN = "<|pad|>", "<|im_end|>", "<|im_start|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> Any:
    """A byte-level PreTrainedTokenizerFast: ids 0 pad, 1 end, 2 turn start, 3..258 the bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([PAD, END, TURN, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def make_tiny_model(folder: str | Path, seed: int = 0, **config: Any) -> Path:
    """Write a random Qwen3 (about 90,000 parameters) and its tokenizer as safetensors; returns the folder.

    `config` overrides Qwen3Config fields. The initial weights are drawn wider than usual (0.15) so that the
    next-token distribution is far from uniform, and the end token's row is doubled so that completions end;
    under the same seed and config the files are the same.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = Path(folder)
    tokenizer = make_tokenizer()
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "initializer_range": 0.15,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(Qwen3Config(**(fields | config)))
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_end_tokens(model: str | Path, folder: str | Path, end_ids: list[int]) -> Path:
    """A copy of a model whose generation config lists these end tokens; its tokenizer's own stays the one it was."""
    import json
    import shutil

    copied = Path(shutil.copytree(model, folder))
    path = copied / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": end_ids}))
    return copied
