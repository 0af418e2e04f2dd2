"""The first thing that runs in a sandbox, as `python -P -s -S -c TEXT`: it sets the limits, then becomes the program.

Arguments: file descriptors of the source, of a pipe that says when the source is there, and of one on which this says
that it began. The source's first line has NAME=VALUE for each limit. Here is nothing that the program must not know,
and nothing said afterwards is believed.
"""


def begin() -> bytes:
    """Wait for the source, set the limits and return it."""
    import os
    import resource
    import sys

    source, go, begun = (int(one) for one in sys.argv[1:])
    if not os.read(go, 1):  # nobody is there any more
        os._exit(0)
    with open(source, "rb") as file:  # noqa: PTH123
        limits, text = file.readline(), file.read()
    for limit in limits.split():
        name, _, value = limit.decode().partition("=")
        if (kind := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            hard = resource.getrlimit(kind)[1]
            wanted = int(value) + (name == "CPU")  # SIGKILL comes at the hard limit; SIGXCPU tells that it was the time
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            try:
                resource.setrlimit(kind, (min(int(value), most), most))
            except (OSError, ValueError):  # macOS has no limit of the address space; what holds is probed
                continue
    os.write(begun, b"1")
    os.close(begun)
    os.close(go)
    return text


def become(space: dict[str, object]) -> None:
    """Run the program in this module's emptied name space, and show its error as Python shows one of a script."""
    import _sitebuiltins
    import builtins
    import sys

    source = begin()
    for name in ("begin", "become"):
        del space[name]
    for name in ("exit", "quit"):  # of `site`, which is left out because it takes long
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    space["__doc__"] = None
    sys.argv[:] = ["program.py"]
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), space)
    except SystemExit:
        raise
    except BaseException as error:
        import linecache
        import traceback

        lines = source.decode("utf-8", "replace").splitlines(keepends=True)
        linecache.cache["program.py"] = (len(source), None, lines, "program.py")
        shown = error.__traceback__
        error.__traceback__ = None if shown is None else shown.tb_next  # without the frame of this file
        traceback.print_exception(error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    become(globals())
