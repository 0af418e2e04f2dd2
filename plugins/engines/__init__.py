"""Engines turn prompts into completions: `hf` runs a model here, `replay` reads recorded completions."""
