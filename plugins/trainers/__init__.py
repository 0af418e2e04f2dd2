"""Trainers: `sft` and `grpo` on TRL, and what they share.

`sft.py` and `grpo.py` are the plugins. `_options.py` has the config fields both take, `_trl_fields.py` the names
that may stand under `trainer.trl`, `_setup.py` what a TRL trainer needs to start, `_trl.py` its running (reports,
resume, stopping, saving), `_checkpoints.py` what makes a checkpoint whole and `health.py` the watch over a GRPO run.
"""
