"""Entry points of other distributions: real dist-info folders on the path of a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nsd.plugins.registry import BUILT_IN

GOOD = """\
from nsd import Verifier, plugin, PluginConfig

@plugin("verifier", "{name}")
class Good(Verifier):
    class Config(PluginConfig):
        strict: bool = False

    def extract(self, completion):
        return completion.split()[-1] if completion.split() else None
"""
SPEC = """\
name: toy
data: {use: jsonl, train: rows.jsonl, test: rows.jsonl}
verifier: VERIFIER
engine: {use: replay, path: said.jsonl, fields: {completion: said}}
conditions: {base: {train_on: []}}
"""
# name of the entry point, the module's text, and what is said of it
BROKEN = {
    "undecorated": (
        "verifier.mine",
        "from nsd import Verifier\nclass Good(Verifier):\n    pass\n",
        "the class Good is not decorated with @plugin('verifier', 'mine')",
    ),
    "undecorated heir of a decorated class": (
        "verifier.mine",
        GOOD.format(name="mine").replace("class Good", "class Base") + "\nclass Good(Base):\n    pass\n",
        "the class Good is not decorated with @plugin('verifier', 'mine')",
    ),
    "other kind": (
        "verifier.mine",
        "from nsd import Reward, plugin\n@plugin('reward', 'mine')\nclass Good(Reward):\n    pass\n",
        "Good is a reward, not a verifier",
    ),
    "a reward that says it is a verifier": (
        "verifier.mine",
        "from nsd import Reward, plugin\n@plugin('verifier', 'mine')\nclass Good(Reward):\n    pass\n",
        "the class Good says that it is a verifier and does not derive from Verifier",
    ),
    "no class": ("verifier.mine", "def Good():\n    return 1\n", "it is a function, not a class"),
    "a class of its own": (
        "verifier.mine",
        "class Good:\n    pass\n",
        "the class Good does not derive from Verifier",
    ),
    "nothing of this name": ("verifier.mine", "x = 1\n", "AttributeError: module 'broken_one' has no attribute 'Good'"),
    "other name": (
        "verifier.mine",
        GOOD.format(name="yours"),
        "the class calls itself 'yours', its entry point 'mine'",
    ),
    "import error": ("verifier.mine", "import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
    "exit at import": ("verifier.mine", "import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "syntax error": ("verifier.mine", "def (:\n", "SyntaxError: invalid syntax"),
    "config of no kind": (
        "verifier.mine",
        GOOD.format(name="mine").replace("class Config(PluginConfig)", "class Config"),
        "the Config of Good does not derive from PluginConfig",
    ),
    "config without a schema": (
        "verifier.mine",
        GOOD.format(name="mine").replace("strict: bool = False", "strict: __import__('typing').Callable = print"),
        "its Config has no schema: PydanticInvalidForJsonSchema",
    ),
    "default that is no JSON": (
        "verifier.mine",
        GOOD.format(name="mine").replace("strict: bool = False", "least: float = float('nan')"),
        "its Config has no schema: ValueError: Out of range float values are not JSON compliant",
    ),
    "abstract config": (
        "verifier.mine",
        "import abc\n"
        + GOOD.format(name="mine")
        .replace("class Config(PluginConfig)", "class Config(PluginConfig, abc.ABC)")
        .replace("strict: bool = False", "@abc.abstractmethod\n        def lacking(self): ..."),
        "the Config of Good is abstract: it lacks lacking",
    ),
    "a class that does not let itself be looked at": (
        "verifier.mine",
        "class Meta(type):\n    def __getattribute__(cls, name):\n        raise RuntimeError(f'no {name}')\n\n"
        "class Good(metaclass=Meta):\n    pass\n",
        "looking at broken_one:Good failed: RuntimeError: no",
    ),
    "an error that is no Exception": (
        "verifier.mine",
        "class Odd(BaseException):\n    pass\n\nraise Odd('at import')\n",
        "importing broken_one:Good failed: Odd: at import",
    ),
    "name without a kind": ("mine", GOOD.format(name="mine"), "its name should be KIND.NAME"),
    "kind that is none": ("verifyer.mine", GOOD.format(name="mine"), "its name should be KIND.NAME"),
    "built-in name": ("verifier.numeric", GOOD.format(name="numeric"), "nsd has a verifier of this name itself"),
}


def distribution(site: Path, name: str, points: dict[str, str], module: str, text: str, version: str = "1.2") -> None:
    """Write a distribution as pip leaves it."""
    site.mkdir(exist_ok=True)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{point} = {target}\n" for point, target in points.items())
    (info / "entry_points.txt").write_text(f"[nsd.plugins]\n{lines}")
    (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n")
    (site / f"{module}.py").write_text(text)


def environment(site: Path) -> dict[str, str]:
    """With the folder of distributions in front of what the path has already."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "NSD_DEBUG": "1"}


def nsd(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command with the folder of distributions on its path."""
    return subprocess.run(
        [sys.executable, "-m", "nsd.runner.cli", *arguments],
        cwd=cwd or site,
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=120,
    )


def spec(folder: Path, verifier: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text('{"question": "a?", "answer": "7"}\n')
    (folder / "said.jsonl").write_text('{"question": "a?", "said": "it is 7"}\n')
    path = folder / f"{verifier}.yaml"
    path.write_text(SPEC.replace("VERIFIER", verifier))
    return path


@pytest.fixture(scope="module")
def every_fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of distributions in which everything is wrong that can be, beside a good one."""
    site = tmp_path_factory.mktemp("every")
    loud = GOOD.format(name="good") + "\nGood.__doc__ = 7\nprint('loud at import')\n__import__('sys').stdout = None\n"
    distribution(site, "good-one", {"verifier.good": "good_one:Good"}, "good_one", loud)
    for number, (point, text, _) in enumerate(BROKEN.values()):
        point = point.replace("mine", f"mine{number}")
        text = text.replace("mine", f"mine{number}")
        distribution(site, f"broken-{number}", {point: f"broken_{number}:Good"}, f"broken_{number}", text)
    for name in ("left-twin", "right-twin"):
        module = name.replace("-", "_")
        distribution(site, name, {"verifier.twin": f"{module}:Good"}, module, GOOD.format(name="twin"))
    torn = site / "torn-1.0.dist-info"
    torn.mkdir()
    (torn / "entry_points.txt").write_text("[nsd.plugins]\nverifier.torn = torn:Good\n")
    mangled = site / "mangled-1.0.dist-info"
    mangled.mkdir()
    (mangled / "METADATA").write_text("Metadata-Version: 2.1\nName: mangled\nVersion: 1.0\n")
    (mangled / "entry_points.txt").write_bytes(b"[nsd.plugins]\nverifier.x\xff\xfe = \xe4:Good\n")
    return site


def test_every_broken_one_is_named_and_the_others_work(every_fault: Path) -> None:
    done = nsd(every_fault, "plugins")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    for number, (name, (point, _, reason)) in enumerate(BROKEN.items()):
        about = f"left out: {point.replace('mine', f'mine{number}')} of broken-{number} 1.2: "
        reason = reason.replace("mine", f"mine{number}").replace("broken_one", f"broken_{number}")
        (line,) = [line for line in said if line.startswith(about)]
        assert reason in line, name
    assert (
        "left out: verifier.twin of left-twin 1.2: right-twin 1.2 registers the same name: uninstall one of them"
        in said
    )
    assert (
        "left out: verifier.twin of right-twin 1.2: left-twin 1.2 registers the same name: uninstall one of them"
        in said
    )
    assert any(line.startswith("left out: ? of torn-1.0: its metadata cannot be read") for line in said)
    assert any(line.startswith("left out: ? of mangled") for line in said)
    assert len(said) == len(BROKEN) + 4
    assert "verifier good: " in done.stdout and "verifier numeric: " in done.stdout


def test_json_has_what_was_left_out(every_fault: Path) -> None:
    found = json.loads(nsd(every_fault, "plugins", "verifier", "--json").stdout)
    assert "good" in {entry["name"] for entry in found["plugins"]}
    (shadow,) = [entry for entry in found["left_out"] if entry["name"] == "verifier.numeric"]
    assert (
        shadow["distribution"] == f"broken-{list(BROKEN).index('built-in name')} 1.2"
        and "nsd has a verifier of this name" in shadow["reason"]
    )


def test_the_schema_offers_what_can_be_used(every_fault: Path) -> None:
    done = nsd(every_fault, "schema")
    assert done.returncode == 0, done.stderr
    definitions = json.loads(done.stdout)["$defs"]
    verifiers = {name for name in definitions if name.startswith("verifier.") and name.count(".") == 1}
    assert verifiers == {"verifier.good", *(f"verifier.{name}" for name in BUILT_IN["verifier"])}


@pytest.mark.slow
def test_specs_that_do_not_use_a_broken_one_are_none_the_worse(every_fault: Path, tmp_path: Path) -> None:
    for verifier in ("numeric", "good"):
        done = nsd(every_fault, "validate", str(spec(tmp_path, verifier)))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        ("mine0", "the class Good is not decorated"),
        ("mine9", "SystemExit: 3"),
        ("twin", "registers the same name"),
    ],
)
def test_a_spec_that_names_a_broken_one_gets_the_reason(
    every_fault: Path, tmp_path: Path, verifier: str, reason: str
) -> None:
    path = spec(tmp_path, verifier)
    done = nsd(every_fault, "validate", str(path))
    assert done.returncode == 2
    assert f"{path}:3:" in done.stderr and reason in done.stderr and "Traceback" not in done.stderr


def test_a_built_in_name_stays_the_built_in_plugin(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shadow = GOOD.format(name="numeric").replace("completion.split()[-1] if completion.split() else None", "'shadow'")
    distribution(site, "shadow", {"verifier.numeric": "shadow:Good"}, "shadow", shadow)
    code = "import shadow, nsd.plugins.registry as r; print(r.find('verifier', 'numeric')().extract('#### 7'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(site), capture_output=True, text=True)
    assert done.stdout == "7\n", done.stderr


@pytest.mark.slow
def test_a_run_says_from_which_distribution_its_plugins_came(tmp_path: Path) -> None:
    site = tmp_path / "site"
    distribution(site, "good-one", {"verifier.good": "good_one:Good"}, "good_one", GOOD.format(name="good"))
    path = spec(tmp_path / "theirs", "good")
    assert nsd(site, "run", str(path), cwd=tmp_path).returncode == 0
    shown = nsd(site, "show", "toy/base/seed42", cwd=tmp_path)
    assert "plugins    good of good-one 1.2" in shown.stdout, shown.stdout + shown.stderr
    before = json.loads(nsd(site, "plan", str(path), "--json", cwd=tmp_path).stdout)
    assert [stage["cached"] for stage in before["stages"]] == [True, True]
    info = (site / "good-one-1.2.dist-info").rename(site / "good-one-1.3.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: good-one\nVersion: 1.3\n")
    after = json.loads(nsd(site, "plan", str(path), "--json", cwd=tmp_path).stdout)
    assert [stage["cached"] for stage in after["stages"]] == [True, False], "what was drawn is drawn"
    assert after["stages"][1]["changed_since_nearest"] == ["verifier.code.distribution_version: 1.2 -> 1.3"]


def test_a_class_that_cannot_be_made_of_its_config_is_an_error_that_says_so(tmp_path: Path) -> None:
    text = GOOD.format(name="good") + "\n    def __init__(self, config, more):\n        pass\n"
    distribution(tmp_path / "site", "good-one", {"verifier.good": "good_one:Good"}, "good_one", text)
    done = nsd(tmp_path / "site", "plan", str(spec(tmp_path, "good")))
    assert done.returncode == 2, done.stderr
    assert "the verifier 'good' cannot be made of its config: TypeError" in done.stderr
