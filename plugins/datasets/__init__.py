"""Datasets: where questions come from (`gsm8k`, `math`, `numinamath`, `jsonl`, `wordmath`) and how they are split."""
