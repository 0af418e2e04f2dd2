"""A mutation check: `make mutants` plants single faults in the product, one at a time, and asks whether a test notices.

mutmut makes the faults; it was chosen over cosmic-ray. Its operators reach what goes wrong here (an argument left
out or None, a value not assigned, a changed key, a moved bound, a turned condition), where cosmic-ray has numbers,
operators and decorators only; and it leaves annotations and docstrings alone, where cosmic-ray mutates `str | None`
under `from __future__ import annotations`, which nothing can notice. mutmut's own way of running them is not used: it
swaps functions inside the process by an environment variable, which changes what `inspect`, pydantic and the digests of
plugins see, and leaves decorated functions and class bodies out. Here each fault is one changed place of an ordinary
file in a copy of the checkout, which pytest and every process that a test starts import. The checkout is only read.

    faults.py    the list: which faults there are, which are left out, which are drawn
    copies.py    a copy of the checkout with an interpreter of its own
    covering.py  which tests execute which line, also in child processes and in shared fixtures
    server.py    a warm process in each copy; it forks once per fault
    __main__.py  the run, the figure, the survivors

The fast part of the suite runs alone (`not slow and not browser and not cluster`), so a fault that only the slow part
would notice counts as survived. Linux only (fork, /proc).
"""
