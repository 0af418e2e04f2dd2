"""`python -m nsd.runner.cli`: the same as the command `nsd`."""

from nsd.runner.cli.app import main

main()
