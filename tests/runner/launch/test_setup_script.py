"""The script that makes a machine ready, with stand-ins on a PATH of its own: which Python, which torch, what fails.

The PATH holds the programs that the script may use and what a test puts there; Python is a script that says its
version. `python3.11 -m venv` of the stand-in makes a folder with a Python that writes down what pip was told.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from nsd.runner.launch.setup import SENTENCE, reason_in
from support import PATIENCE, REPOSITORY

TASK = yaml.safe_load((REPOSITORY / "sky.yaml").read_text())
USED = ("bash", "cat", "cp", "cut", "dirname", "grep", "head", "mkdir", "chmod", "rm", "sed", "sha256sum", "tail")
# A Python of VERSION. In an environment it is pip, which writes down what it was told and fails where FAIL says so.
PYTHON = """#!{bash}
VERSION=${{VERSION:-{version}}}
case "$*" in
  --version) echo "Python $VERSION" ;;
  "-c import ensurepip"*) MINOR=${{VERSION#3.}}; [ "${{MINOR%%.*}}" -ge 11 ] ;;
  "-m venv "*) make_environment "$3" ;;
  "-m pip --version") [ -n "{inside}" ] ;;
  "-m nsd."*) echo "python $*" >> "$HOME/told" ;;
  "-m pip install"*)
    echo "pip $*" >> "$HOME/told"
    if [ -n "$FAIL" ] && [[ "$*" == *$FAIL* ]]; then echo "ERROR: No matching distribution found for $FAIL"; exit 1; fi
    if [ -n "$BRINGS_UV" ] && [[ "$*" == *" uv" ]]; then cp "$HOME/uv" "$(dirname "$0")/uv"; fi ;;
esac
"""
NSD = """#!{bash}
[ "$2" = --help ] && exit 0
echo "nsd $*" >> "$HOME/told"
[ -z "$UNFIT" ] || {{ echo "nsd: $UNFIT" >&2; exit 2; }}
echo "ready: cpu, there is no NVIDIA GPU"
"""
MAKE = """#!{bash}
mkdir -p "$1/bin"
cp "$HOME/inside" "$1/bin/python"
cp "$HOME/nsd" "$1/bin/nsd"
"""
UV = """#!{bash}
echo "uv $*" >> "$HOME/told"
[ "$1" != venv ] || VERSION=3.11.9 make_environment "${{@: -1}}"
[ "$1" != pip ] || [[ -z "$NO_CUDA_12" || "$*" == *$NO_CUDA_12* ]] || {{ echo "error: no such build"; exit 1; }}
"""
SMI = """#!{bash}
echo "$DRIVER"
"""


@dataclass
class Machine:
    """A home, a PATH and a working directory with a wheel."""

    root: Path

    def program(self, name: str, text: str, folder: str = "bin", **values: str) -> None:
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(bash=shutil.which("bash"), **values))
        path.chmod(0o755)

    def python(self, name: str, version: str) -> None:
        self.program(name, PYTHON, version=version, inside="")

    def setup(self, code: int = 0, **envs: str) -> str:
        """What the script prints; it ends with this code."""
        done = subprocess.run(
            ["bash", "-c", TASK["setup"]],
            cwd=self.root / "workdir",
            env={**TASK["envs"], "SPEC": "spec.yaml", **self.sent(), "PATH": str(self.root / "bin")}
            | {"HOME": str(self.root / "home")}
            | envs,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, **envs: str) -> int:
        """The exit code of the script that runs the spec."""
        home = self.root / "home"
        paths = {"HOME": str(home), "PATH": str(self.root / "bin")}
        env = {**TASK["envs"], **TASK["secrets"], "SPEC": "spec.yaml", **self.sent(), **paths, **envs}
        return subprocess.run(["bash", "-c", TASK["run"]], cwd=self.root, env=env, timeout=PATIENCE).returncode

    @property
    def wheel(self) -> Path:
        return self.root / "workdir" / "nsd-sent" / "nsd-0.1.0-py3-none-any.whl"

    def sent(self) -> dict[str, str]:
        return {
            "NSD_WHEEL": "nsd-sent/nsd-0.1.0-py3-none-any.whl",
            "NSD_SHA256": hashlib.sha256(self.wheel.read_bytes()).hexdigest(),
        }

    @property
    def made(self) -> Path:
        """The environment of the nsd that is sent."""
        return self.root / "home" / f"nsd-environment-{self.sent()['NSD_SHA256'][:12]}"

    @property
    def told(self) -> list[str]:
        """What pip, uv and nsd were told, without the folders that differ."""
        path = self.root / "home" / "told"
        text = path.read_text() if path.exists() else ""
        options = " --quiet --disable-pip-version-check --no-compile"
        text = text.replace(str(self.made), "~/made").replace(f"{self.root}/home", "~")
        return text.replace(options, "").splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    for name in USED:
        place = shutil.which(name)
        assert place is not None
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(place)
    found.program("make_environment", MAKE)
    found.program("inside", PYTHON, "home", version="3.11.9", inside="yes")
    found.program("nsd", NSD, "home")
    found.program("uv", UV, "home")
    (tmp_path / "workdir" / "nsd-sent").mkdir(parents=True)
    (tmp_path / "workdir" / "nsd-sent" / "nsd-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    (tmp_path / "workdir" / "nsd-sent" / "constraints.txt").write_text("torch==2.13.0\ntrl==1.16.0\n")
    return found


INSTALLED = [
    "pip -m pip install -c ~/nsd-constraints.txt torch",
    "pip -m pip install -c ~/nsd-constraints.txt ./nsd-sent/nsd-0.1.0-py3-none-any.whl[train,math,sandbox]",
    "nsd ready spec.yaml",
]


def said(printed: str) -> str:
    """The one line that matters, which is the last, and what a launch shows of all that was printed."""
    last = printed.splitlines()[-1]
    assert last.startswith(SENTENCE) and reason_in(printed.splitlines()) == last.removeprefix(SENTENCE)
    return last


@pytest.mark.parametrize("part", ["setup", "run"])
def test_the_scripts_are_sound_for_bash(part: str) -> None:
    subprocess.run(["bash", "-n", "-c", TASK[part]], check=True)


def test_what_was_sent_is_installed_by_its_file_and_asked_whether_the_machine_fits(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.setup()
    assert machine.told == INSTALLED
    assert not any(" nsd[" in line or line.endswith(" nsd") for line in machine.told)


def test_ray_is_installed_where_the_spec_spreads_its_work_over_it(machine: Machine) -> None:
    """In an environment of its own name: one that was made without Ray may be there already."""
    machine.python("python3", "3.11.4")
    machine.setup(NSD_OVER="ray")
    assert machine.told[1] == INSTALLED[1].replace("sandbox]", "sandbox,ray]")
    assert len(list((machine.root / "home").glob("nsd-environment-*-ray"))) == 1


def test_vllm_gets_an_environment_where_the_spec_draws_by_it_also_beside_an_nsd_that_is_here(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.setup(NSD_BESIDE="vllm")
    machine.setup(NSD_BESIDE="vllm")
    asked = "python -m nsd.plugins.engines.vllm_environment --if-none"
    assert machine.told == [*INSTALLED[:2], asked, INSTALLED[2], asked, INSTALLED[2]]


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3": "3.10.12", "python3.11": "3.11.4"}, "3.11.4"),
        ({"python3": "3.14.1"}, "3.14.1"),
        ({"python3": "3.10.12", "python3.11": "3.11.4", "python3.12": "3.12.8"}, "3.12.8"),
    ],
)
def test_a_python_that_suits_is_taken(machine: Machine, there: dict[str, str], taken: str) -> None:
    for name, version in there.items():
        machine.python(name, version)
    assert f"making an environment with Python {taken}" in machine.setup()


@pytest.mark.parametrize("where", ["bin", "home/.local/bin"])
def test_uv_brings_python_where_the_image_has_3_10(machine: Machine, where: str) -> None:
    machine.python("python3", "3.10.12")
    machine.program("uv", UV, where)
    assert "bringing Python 3.11 by uv, for Python 3.10.12 is here" in machine.setup()
    assert machine.told == ["uv venv --quiet --seed --python 3.11 ~/made", *INSTALLED]


def test_uv_is_brought_by_pip_where_there_is_none(machine: Machine) -> None:
    machine.python("python3", "3.10.12")
    machine.setup(BRINGS_UV="yes")
    assert machine.told[0] == "pip -m pip install --quiet uv"
    assert machine.told[1:] == ["uv venv --quiet --seed --python 3.11 ~/made", *INSTALLED]


@pytest.mark.parametrize("here", ["Python 3.10.12", "no Python"])
def test_where_neither_can_be_had_it_is_said(machine: Machine, here: str) -> None:
    if here != "no Python":
        machine.python("python3", "3.10.12")
    line = said(machine.setup(1, FAIL="uv"))
    assert f"nsd needs Python 3.11 or newer and {here} is here, and uv, which would bring it, cannot be" in line
    assert "take another image (resources.image_id), or --environment" in line


def test_a_package_that_cannot_be_had_is_the_line_that_matters(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    line = said(machine.setup(1, FAIL="torch"))
    assert line == f"{SENTENCE}installing torch: ERROR: No matching distribution found for torch"


def test_a_wheel_that_is_not_the_one_that_was_sent_is_not_installed(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    line = said(machine.setup(1, NSD_SHA256="0" * 64))
    assert line == f"{SENTENCE}nsd-sent/nsd-0.1.0-py3-none-any.whl is not the wheel that was sent"
    assert machine.told == []


def test_a_command_that_ends_the_setup_by_itself_is_named(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    (machine.root / "workdir/nsd-sent/constraints.txt").unlink()
    line = said(machine.setup(1))
    assert line.startswith(f"{SENTENCE}cp ") and line.endswith(": exit code 1")


def test_a_machine_that_does_not_fit_fails_with_the_sentence_of_nsd(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    line = said(machine.setup(1, UNFIT="torch 2.13.0 is built for CUDA 13.0, which needs driver 580 or newer"))
    assert line == f"{SENTENCE}torch 2.13.0 is built for CUDA 13.0, which needs driver 580 or newer"


def test_without_a_wheel_and_outside_a_checkout_nothing_is_installed(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    line = said(machine.setup(1, NSD_WHEEL=""))
    assert "this folder is no checkout of nsd, and no wheel of it was sent: nsd launch spec.yaml sends one" in line
    assert machine.told == []


def test_a_checkout_is_installed_from_where_it_is(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, machine.root / "workdir")
    machine.setup(NSD_WHEEL="")
    assert machine.told == [
        INSTALLED[0],
        "pip -m pip install -c ~/nsd-constraints.txt -e .[train,math,sandbox]",
        "nsd ready spec.yaml",
    ]


UV_TORCH = "uv pip install --quiet --python ~/made/bin/python --torch-backend auto"


def test_an_older_driver_gets_a_torch_that_it_can_run(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.program("nvidia-smi", SMI)
    machine.program("uv", UV)
    assert "installing a torch for driver 535 (CUDA 12)" in machine.setup(DRIVER="535.183.06")
    assert machine.told == [f"{UV_TORCH} -c ~/nsd-constraints.txt torch", *INSTALLED]


def test_where_the_version_has_no_build_for_the_driver_an_older_one_is_taken(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.program("nvidia-smi", SMI)
    machine.program("uv", UV)
    machine.setup(DRIVER="535.183.06", NO_CUDA_12="torch>=2.9")
    assert machine.told[1] == f"{UV_TORCH} -c ~/nsd-constraints.txt torch>=2.9"
    assert (machine.root / "home/nsd-constraints.txt").read_text() == "trl==1.16.0\n"  # or pip would put it back


def test_where_no_torch_for_the_driver_can_be_had_it_is_said_and_nsd_judges(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.program("nvidia-smi", SMI)
    machine.program("uv", UV)
    printed = machine.setup(1, DRIVER="535.183.06", NO_CUDA_12="nothing", UNFIT="the driver here is 535.183.06")
    assert "no torch for CUDA 12 can be had: error: no such build" in printed
    assert said(printed) == f"{SENTENCE}the driver here is 535.183.06"


@pytest.mark.parametrize("driver", ["580.95.05", "", "NVIDIA-SMI has failed"])
def test_a_driver_of_today_or_none_takes_torch_from_the_index(machine: Machine, driver: str) -> None:
    machine.python("python3", "3.11.4")
    machine.program("nvidia-smi", SMI)
    machine.setup(DRIVER=driver)
    assert machine.told == INSTALLED


def test_a_ready_environment_that_is_not_there_is_said(machine: Machine) -> None:
    line = said(machine.setup(1, NSD_ENVIRONMENT="/nowhere"))
    assert line == f"{SENTENCE}there is no /nowhere/bin/nsd on this machine"


def test_a_ready_environment_is_asked_whether_the_machine_fits(machine: Machine) -> None:
    machine.program("nsd", NSD, "ready/bin")
    machine.setup(NSD_ENVIRONMENT=str(machine.root / "ready"))
    assert machine.told == ["nsd --help", "nsd ready spec.yaml"]


def test_the_environment_of_the_nsd_that_is_sent_is_made_once(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    half = machine.made / "bin"
    half.mkdir(parents=True)
    (half / "python").symlink_to("/nowhere")
    assert "making an environment" in machine.setup()  # half a one is none
    assert "the nsd that was sent is here already" in machine.setup()
    assert machine.told == [*INSTALLED, "nsd ready spec.yaml"]


def test_another_nsd_leaves_the_environment_of_the_first_alone(machine: Machine) -> None:
    """A run may be using it: of a machine that was taken away, on a home that it shares with this one."""
    machine.python("python3", "3.11.4")
    machine.setup()
    first = machine.made
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    machine.wheel.write_bytes(b"another wheel")
    assert "making an environment" in machine.setup()
    assert machine.made != first and (machine.made / "bin/nsd").exists()
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_machines_that_share_a_home_make_its_environment_one_after_the_other(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.program("flock", '#!{bash}\necho "flock $*" >> "$HOME/told"\n')
    machine.setup()
    assert machine.told == ["flock 9", *INSTALLED]


def test_the_run_takes_the_environment_that_the_setup_made(machine: Machine) -> None:
    machine.python("python3", "3.11.4")
    machine.program("timeout", '#!{bash}\nshift 4\nexec "$@"\n')
    machine.setup()
    assert machine.run() == 0 and machine.told[-1] == "nsd run spec.yaml"
    assert machine.run(NSD_SHA256="0" * 64) == 127  # it is of no other


@pytest.mark.slow
def test_a_real_uv_stand_in_with_the_real_python_makes_an_environment_on_an_image_with_3_10(machine: Machine) -> None:
    """`uv venv` is played by this Python's own venv; pip is the real one, and installs nsd's wheel without an index."""
    from nsd.runner.launch.wheel import own_wheel

    machine.python("python3", "3.10.12")
    machine.program("uv", '#!{bash}\n"{python}" -m venv "${{@: -1}}"\n', python=sys.executable)
    shutil.rmtree(machine.root / "workdir/nsd-sent")
    wheel = own_wheel(machine.root / "workdir/nsd-sent")
    (machine.root / "workdir/nsd-sent/constraints.txt").write_text("")
    (machine.root / "workdir/spec.yaml").write_text("name: x\n")
    # What nsd needs, but not the nsd here, is borrowed from this environment, so pip finds it installed.
    borrowed = machine.root / "borrowed"
    borrowed.mkdir()
    for folder in (Path(path) for path in reversed(sys.path) if path.endswith("site-packages")):
        for one in folder.iterdir():
            if (
                not one.name.startswith(("nsd", "_", "pip"))
                and one.suffix != ".pth"
                and not (borrowed / one.name).exists()
            ):
                (borrowed / one.name).symlink_to(one)
    printed = machine.setup(
        1, NSD_SHA256=wheel.sha256, NSD_WHEEL=f"nsd-sent/{wheel.path.name}", PIP_NO_INDEX="1", PYTHONPATH=str(borrowed)
    )
    assert "the spec has no conditions" in printed  # so the nsd that was sent read the spec, and judged
    (made,) = (machine.root / "home").glob(f"nsd-environment-{wheel.sha256[:12]}")
    assert (made / "bin/nsd").exists()
