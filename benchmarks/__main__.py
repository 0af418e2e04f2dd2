"""`make bench`: every measurement, one after another, each in a process of its own.

python -m benchmarks [--record [FILE]] [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import MODULES
from benchmarks.frame import argument_parser

if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; --record goes behind them")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(MODULES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: {', '.join(MODULES)}")
    more = [] if asked.record is None else [f"--record={asked.record}"]
    commands = [[sys.executable, "-m", f"benchmarks.{name}", *more] for name in asked.names or MODULES]
    sys.exit(max(subprocess.run(command).returncode for command in commands))
