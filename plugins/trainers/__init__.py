"""Trainers: `sft` and `grpo` on TRL, and what they share.

`sft.py` and `grpo.py` are the plugins. `_options.py` has the config fields both take, `_trl_fields.py` the names
that may stand under `trainer.trl`, `_checkpoints.py` what makes a checkpoint whole, `_trl.py` the running of a TRL
trainer (reports, resume, stopping, saving) and `health.py` the watch over a GRPO run.
"""
