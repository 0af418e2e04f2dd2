"""Engines turn prompts into completions: `hf` runs a model here, `openai` asks a server, `replay` reads a file."""
