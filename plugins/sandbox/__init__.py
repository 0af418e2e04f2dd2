"""Runs Python programs that nobody vouches for, such as a model's: without network, files, environment, and in limits.

    ran = run("print(input())", "5\\n", seconds=2.0)
    ran.stdout, ran.exit_code, ran.timed_out, ran.guarantees

Four kinds: `bubblewrap` (name spaces), `landlock` (the fallback), `process` (limits alone, where somebody asks for it),
and `auto`, the first of the first two that works here. Which of the guarantees `network`, `files`, `environment`,
`processes`, `memory` and `time` hold is found out by attacking them, once in each process: `guarantees()`.

A program has Python's standard library alone, an empty scratch folder, and the same order of sets each time. How it
ends is told by its output and exit code; what it should have said never enters the sandbox.

Limits: docs/sandbox.md. The kernel is shared: a fault in it is a way out of any of these.
"""

from __future__ import annotations

from nsd.plugins.sandbox.choice import chosen, guarantees, run, run_many
from nsd.plugins.sandbox.ran import GUARANTEES, KINDS, Kind, Program, Ran, SandboxFailed

__all__ = ["GUARANTEES", "KINDS", "Kind", "Program", "Ran", "SandboxFailed", "chosen", "guarantees", "run", "run_many"]
