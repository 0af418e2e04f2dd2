"""Times and memory of a plan on a card: the ranges known by hand, what was measured, and what is not known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.model_shape import KNOWN
from nsd.runner.cli.app import app
from nsd.runner.launch import estimate
from nsd.runner.launch.cards import CARDS, CPU
from nsd.runner.launch.estimate import Estimator, StageEstimate
from nsd.runner.launch.memory import CONTEXT, SLACK, TILE_ENTRIES, TILE_TOKENS
from nsd.runner.launch.workload import CHARACTERS_PER_TOKEN, Drawing, Training, tokens_of, work_done, work_of
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from support import REPOSITORY, shared_data

HALF_B = KNOWN["qwen2.5-0.5b"]
GIB = 2**30


def study(folder: Path, name: str, more: str = "") -> Path:
    """A spec of the published study over the real data beside the checkout."""
    path = folder / f"{name}.yaml"
    data = shared_data("gsm8k/train.jsonl").parent
    published = REPOSITORY / "specs" / "gsm8k" / f"{name}.yaml"
    path.write_text(f"extends: {published}\nname: {name}\ndata: {{path: {data}}}\n{more}")
    return path


def plan_of(folder: Path, name: str, more: str = "") -> Plan:
    return build_plan(load_spec(study(folder, name, more)))


def by_title(plan: Plan, workspace: Workspace, card: str) -> dict[str, StageEstimate]:
    return {stage.title: stage for stage in Estimator(plan, workspace).on(card).stages}


# --------------------------------------------------------------------------- the published study


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "most"), [("v1_sft", 35 / 60, 50 / 60), ("v4_grpo", 6.5, 8.0)])
def test_the_study_takes_on_an_l4_what_is_known_by_hand(tmp_path: Path, name: str, least: float, most: float) -> None:
    hours = Estimator(plan_of(tmp_path, name), Workspace(tmp_path / "w")).on("L4:1").hours
    assert hours is not None and least < hours < most


@pytest.mark.slow
def test_a_training_in_a_type_of_its_own_takes_the_memory_of_that_type(tmp_path: Path) -> None:
    """Weights and two moments of 0.49 billion parameters: 3 x 4 bytes each instead of 3 x 2; a sampling is the same."""
    half, whole = (
        by_title(plan_of(tmp_path, "v1_sft", f"model: {{dtype: bfloat16, train_dtype: {name}}}\n"), workspace, "L4:1")
        for name, workspace in (("bfloat16", Workspace(tmp_path / "a")), ("float32", Workspace(tmp_path / "b")))
    )
    trained = next(title for title in half if title.startswith("train"))
    more = (whole[trained].allocated or 0) - (half[trained].allocated or 0)
    assert more >= HALF_B.parameters * 6 * 0.95
    drawn = next(title for title in half if title.startswith("sample"))
    assert whole[drawn].allocated == half[drawn].allocated


@pytest.mark.slow
def test_an_engine_with_a_type_of_its_own_draws_with_weights_of_that_type(tmp_path: Path) -> None:
    """0.49 billion weights of 4 bytes instead of 2, and no other training."""
    half, whole = (
        by_title(plan_of(tmp_path, "v1_sft", f"model: {{dtype: bfloat16}}\n{more}"), workspace, "L4:1")
        for more, workspace in (
            ("engine: {batch_size: 1}\n", Workspace(tmp_path / "a")),
            ("engine: {batch_size: 1, dtype: float32}\n", Workspace(tmp_path / "b")),
        )
    )
    drawn = next(title for title in half if title.startswith("sample"))
    more = (whole[drawn].allocated or 0) - (half[drawn].allocated or 0)
    assert more >= HALF_B.parameters * 2 * 0.95
    trained = next(title for title in half if title.startswith("train"))
    assert whole[trained].allocated == half[trained].allocated


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "gib"), [("bfloat16", 5), ("float32", 7)])
def test_the_machine_should_have_main_memory_for_twice_the_weights(tmp_path: Path, dtype: str, gib: int) -> None:
    """0.494 billion weights of 2 or 4 bytes, twice: 1.84 or 3.68 GiB, beside 3 GiB for everything else."""
    more = f"model: {{dtype: bfloat16, train_dtype: {dtype}}}\n"
    assert Estimator(plan_of(tmp_path, "v1_sft", more), Workspace(tmp_path / "w")).main_memory_gib() == gib


@pytest.mark.slow
def test_every_process_of_a_spread_training_loads_the_weights(tmp_path: Path) -> None:
    """0.494 billion weights of 4 bytes: 1.84 GiB for each of four processes and for a checkpoint, beside 3 GiB."""
    more = "model: {dtype: bfloat16, train_dtype: float32}\ntrainer: {fsdp: true}\n"
    assert Estimator(plan_of(tmp_path, "v1_sft", more), Workspace(tmp_path / "w")).main_memory_gib(4) == 13


LORA = "model: {dtype: bfloat16, lora: {rank: 8}}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "gpus", "gib"),
    [
        (LORA, 1, 5),
        (LORA, 4, 8),
        (LORA + "resources: {sampling_processes: 2}\n", 4, 6),
        ("model: {dtype: bfloat16}\n", 4, 5),
    ],
    ids=["one", "four", "two of four", "no adapter"],
)
def test_every_process_that_draws_from_an_adapter_merges_it_in_main_memory(
    tmp_path: Path, more: str, gpus: int, gib: int
) -> None:
    """0.494 billion weights of 2 bytes: 0.92 GiB for each that draws and for the files, beside 3 GiB."""
    estimator = Estimator(plan_of(tmp_path, "v1_sft", more), Workspace(tmp_path / "w"))
    assert estimator.main_memory_gib(gpus) == gib


@pytest.mark.slow
@pytest.mark.parametrize(("start", "gib"), [("base", 8), ("teacher", 5)])
def test_an_adapter_trained_from_an_adapter_leaves_whole_weights(tmp_path: Path, start: str, gib: int) -> None:
    """They go from the file to the GPU, by however many processes."""
    arm = f"conditions: {{noisy_student: {{train_on: [labeled, pseudo], label_with: baseline, init: {start}}}}}\n"
    plan = plan_of(tmp_path, "v1_sft", LORA + arm)
    (drawn,) = (one for one in plan.stages.values() if one.kind == "sample" and one.used_by == ["noisy_student/seed42"])
    assert Estimator(plan, Workspace(tmp_path / "w"), [drawn]).main_memory_gib(4) == gib


@pytest.mark.slow
def test_the_page_says_what_the_estimate_says(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "estimates.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([\w-]+) \| (\w+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \|$", page, re.MULTILINE)
    cards = [(c.name, c.half, f"{c.tflops:g}", f"{c.bandwidth:g}", f"{c.memory:.1f}") for c in CARDS.values()]
    assert table == cards
    grpo = Estimator(plan_of(tmp_path, "v4_grpo"), Workspace(tmp_path / "w"))
    sft = Estimator(plan_of(tmp_path, "v1_sft"), Workspace(tmp_path / "w")).on("L4:1").hours
    for name in ("L4:1", "RTX4090:1", "H100:1", "T4:1"):
        found = grpo.on(name)
        assert found.largest is not None and found.hours is not None and found.card is not None
        numbers = f"{found.hours:.1f} +{found.largest.memory_gib:.1f} +{found.card.memory:.1f} "
        assert re.search(rf"^ {name} +{numbers}", page, re.MULTILINE), (name, numbers)
    minutes, hours = f"{(sft or 0) * 60:.0f} minutes", f"{grpo.on('L4:1').hours:.1f} hours"
    assert f"| 35 to 50 minutes | {minutes} |" in page and f"| 6.5 to 8 hours | {hours} |" in page


def test_the_constants_on_the_page_are_those_of_the_code() -> None:
    page = " ".join((REPOSITORY / "docs" / "estimates.md").read_text(encoding="utf-8").split())
    for sentence, true in {
        "layers x 1.2 ms": estimate.LAYER_SECONDS == 0.0012,
        "20 passes over float32 logits": estimate.LOGIT_PASSES == 20,
        "half of the bandwidth": estimate.MEMORY_SHARE == 0.5,
        "a quarter of the rate": estimate.COMPUTE_SHARE == 0.25,
        "20 s to begin": estimate.START_SECONDS == 20,
        "9 minutes to get the machine ready": pytest.approx(9) == estimate.OVERHEAD_HOURS * 60,
        "1,000 tokens a second": estimate.REMOTE_TOKENS == 1000,
        "8 % are added for fragments and 0.6 GiB": (SLACK, CONTEXT) == (1.08, 0.6 * GIB),
        "three characters to a token": CHARACTERS_PER_TOKEN == 3,
        "a tile of 4,096 tokens x 32,768 entries": (TILE_TOKENS, TILE_ENTRIES) == (4096, 32768),
    }.items():
        assert sentence in page and true, sentence


def test_the_tile_is_that_of_the_installed_trl() -> None:
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    assert (TILE_TOKENS, TILE_ENTRIES) == (chunked_logprob.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)


@pytest.mark.slow
def test_plan_shows_hours_and_memory_of_every_card_asked_for(tmp_path: Path) -> None:
    words = [
        "plan",
        str(study(tmp_path, "v4_grpo")),
        "--workspace",
        str(tmp_path / "w"),
        "--gpus",
        "L4:1,H100:1,RTX4090",
    ]
    facts = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    rows = {
        one["accelerator"]: (one["hours"], one["memory_gib"], one["card_gib"], one["fits"])
        for one in facts["estimates"]
    }
    assert list(rows) == ["L4:1", "H100:1", "RTX4090"]
    hours, memory, there, fits = rows["L4:1"]
    assert 6.5 < hours < 8 and 12 < memory < 16 and there == 22.5 and fits
    assert rows["H100:1"][0] < rows["RTX4090"][0] < hours and rows["H100:1"][3] and rows["RTX4090"][3]
    train = {stage["condition"]: stage["memory_gib"] for stage in facts["stages"] if stage["kind"] == "train"}
    assert train["noisy_student"] == pytest.approx(memory)
    shown = " ".join(CliRunner().invoke(app, words, env={"COLUMNS": "120"}).stdout.split())
    assert f"L4:1 {hours:.1f} {memory:.1f} 22.5 fits" in shown
    assert f"2500 steps {memory:.1f}" in shown


@pytest.mark.slow
def test_without_accelerators_a_plan_says_nothing_of_them(tmp_path: Path) -> None:
    words = ["plan", str(REPOSITORY / "specs" / "quickstart.yaml"), "--workspace", str(tmp_path / "w"), "--json"]
    facts = json.loads(CliRunner().invoke(app, words).stdout)
    assert facts["estimates"] == [] and {stage["memory_gib"] for stage in facts["stages"]} == {None}


@pytest.mark.slow
def test_what_does_not_fit_is_told_the_field_that_makes_it_fit(tmp_path: Path) -> None:
    large = "model: {path: Qwen/Qwen3-8B}\nresources: {accelerators: L4:1}\n"
    found = Estimator(plan_of(tmp_path, "v1_sft", large), Workspace(tmp_path / "w")).on("L4:1")
    # Weights 2, gradients 2 and moments 4 bytes for each of 8.19 billion: 61 GiB without a single row.
    assert found.fit is False and found.largest is not None and (found.largest.memory_gib or 0) > 61
    said = found.fitting()
    assert said is not None and "does not fit: train" in said
    assert "with model.lora: {rank: 16}, trainer.gradient_checkpointing: true train oracle/seed42 needs" in said
    assert all(stage.then is not None and stage.then < 22.5 * GIB for stage in found.stages if not stage.fits)


@pytest.mark.slow
def test_no_field_makes_a_model_fit_whose_weights_alone_are_too_large(tmp_path: Path) -> None:
    large = "model: {path: someone/giant-70B}\n"
    found = Estimator(plan_of(tmp_path, "v1_sft", large), Workspace(tmp_path / "w")).on("L4:1")
    assert "take a larger card or a smaller model" in str(found.fitting())
    assert "of someone/giant-70B the name alone is known" in found.sentence()


@pytest.mark.slow
def test_of_each_kind_of_stage_the_hardest_says_what_makes_it_fit(tmp_path: Path) -> None:
    wide = "trainer: {batch_size: 64}\nengine: {use: hf, batch_size: 4096}\n"
    said = str(Estimator(plan_of(tmp_path, "v1_sft", wide), Workspace(tmp_path / "w")).on("L4:1").fitting())
    assert "trainer.micro_batch_size: 16 train oracle/seed42 needs" in said
    assert re.search(r"engine.batch_size: \d+ sample pseudo_only/seed42 \(\+1\) needs", said)


# --------------------------------------------------------------------------- cards that are not known


@pytest.mark.slow
def test_a_card_that_is_not_known_has_no_estimate(tmp_path: Path) -> None:
    found = Estimator(plan_of(tmp_path, "v1_sft"), Workspace(tmp_path / "w")).on("MI300X:1")
    assert found.hours is None and found.fit is None and found.fitting() is None
    assert found.sentence().startswith("nothing is estimated for MI300X:1, which is not in the table of cards")


@pytest.mark.slow
def test_plan_says_of_a_card_that_it_is_not_known(tmp_path: Path) -> None:
    words = ["plan", str(study(tmp_path, "v1_sft")), "--workspace", str(tmp_path / "w"), "--gpus", "L4x:1"]
    shown = " ".join(CliRunner().invoke(app, words, env={"COLUMNS": "120"}).stdout.split())
    assert "L4x:1 unknown" in shown and "nothing is estimated for L4x:1" in shown


@pytest.mark.slow
def test_a_count_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    words = ["plan", str(study(tmp_path, "v1_sft")), "--workspace", str(tmp_path / "w"), "--gpus", "L4:many"]
    assert "write a name and a number, such as L4:1" in str(CliRunner().invoke(app, words).exception)


# --------------------------------------------------------------------------- seconds by hand


def test_a_decoding_step_is_bound_by_launches_by_reading_or_by_computing() -> None:
    step = estimate.decode_step_seconds
    # 24 layers at 1.2 ms; weights of 0.99 GB would be read in 6.6 ms.
    assert step(HALF_B, 2, CARDS["L4"], rows=8, tokens=242) == pytest.approx(0.0288)
    # 7.6156e9 parameters x 2 bytes at half of 300 GB/s.
    assert step(KNOWN["qwen2.5-7b"], 2, CARDS["L4"], rows=0, tokens=0) == pytest.approx(15.231e9 / 150e9, rel=1e-3)
    # 500 rows: weights .988 GB, cache 500 x 242 x 12,288 = 1.487 GB, logits 500 x 151,936 x 4 x 20 = 6.077 GB.
    assert step(HALF_B, 2, CARDS["L4"], rows=500, tokens=242) == pytest.approx(8.552e9 / 150e9, rel=1e-3)
    # On a processor: 2 FLOPs x 494e6 parameters x 64 rows at a quarter of 0.2e12.
    assert step(HALF_B, 4, CPU, rows=64, tokens=10) == pytest.approx(2 * 494.03e6 * 64 / 0.05e12, rel=1e-3)


def test_a_place_is_taken_again_and_only_the_last_rows_wait_for_their_longest() -> None:
    """Rows of 100 tokens at most write 60 on average."""
    steps = estimate.decoding_steps
    assert [steps(rows, 8, 100) for rows in (0, 1, 8)] == [0, 100, 100]
    # 24 rows write 1,440 tokens, 8 at a time in 180 steps; then the last rows have 40 more than the mean.
    assert steps(24, 8, 100) == pytest.approx(180 + 40)
    assert steps(9, 8, 100) == pytest.approx(67.5 + 40)
    # 8,000 rows: three batches of a thousand that wait for their longest would each take 100.
    assert steps(8000, 8, 100) == pytest.approx(60_000 + 40)


def test_a_drawing_by_hand() -> None:
    """1,000 prompts x 8 on an L4, 16 prompts at once: 128 rows, of which 126.6 are written in a step, by launches."""
    work = Drawing(rows=8000, prompts=1000, samples=8, prompt=100, longest=200, limit=256, batch_size=16)
    steps = 8000 * 153.6 / 128 + 102.4
    rows = 8000 * 153.6 / steps
    read = 0.98807e9 + rows * (228 * 12_288 + 151_936 * 4 * 20)
    assert steps == pytest.approx(9702.4) and rows == pytest.approx(126.65, abs=0.01)
    prefill = 2 * 494.03e6 * 100_000 / 30.25e12
    found = estimate.seconds_of(work, HALF_B, "bfloat16", CARDS["L4"])
    assert found == pytest.approx(steps * max(0.0288, read / 150e9) + prefill, rel=1e-3)


def test_grpo_by_hand() -> None:
    """500 steps of 8 rollouts x 256 tokens on an L4: the decoding is nine tenths of it."""
    drawing = Drawing(rows=8, prompts=8, samples=1, prompt=100, longest=200, limit=256)
    work = Training(500, 8, 356, 456, 256, drawing=drawing, generations=500, reference=True)
    decoding = 500 * (256 * 0.0288 + 2 * 494.03e6 * 800 / 30.25e12)
    # Forward, backward and the reference: 8 FLOPs x 494e6 x 2848 tokens; AdamW reads 7 x 988 MB.
    training = 500 * (8 * 494.03e6 * 2848 / 30.25e12 + 7 * 0.98807e9 / 150e9)
    found = estimate.seconds_of(work, HALF_B, "bfloat16", CARDS["L4"])
    assert found == pytest.approx(decoding + training, rel=1e-3) and decoding > 0.85 * found


def test_a_faster_card_does_not_help_what_waits_for_launches() -> None:
    drawing = Drawing(rows=8, prompts=8, samples=1, prompt=100, longest=200, limit=256)
    work = Training(500, 8, 356, 456, 256, drawing=drawing, generations=500)
    slow, fast = (estimate.seconds_of(work, HALF_B, "bfloat16", CARDS[name]) for name in ("L4", "H100"))
    assert 0.85 * slow < fast < slow


def test_two_devices_share_the_rows_of_a_step_and_not_its_decoding_steps() -> None:
    sft = Training(100, 64, 400, 500, 400)
    one, two = (estimate.seconds_of(sft, HALF_B, "bfloat16", CARDS["L4"], count) for count in (1, 2))
    assert 0.5 < two / one < 0.55


def test_two_gpus_draw_a_share_each() -> None:
    """By hand: of 101 prompts with 8 samples the busier one has 51, so 408 rows, and it alone is waited for."""
    work = Drawing(rows=808, prompts=101, samples=8, prompt=100.0, longest=120, limit=200)
    share = Drawing(rows=408, prompts=51, samples=8, prompt=100.0, longest=120, limit=200)
    assert work.shared(2) == share and work.shared(1) == work
    both, one = (estimate.seconds_of(each, HALF_B, "bfloat16", CARDS["L4"], n) for each, n in ((work, 2), (share, 1)))
    assert both == one


@pytest.mark.slow
def test_gpus_of_a_machine_share_a_drawing_unless_the_spec_says_how_many(tmp_path: Path) -> None:
    seconds = {}
    for name, more in {
        "all": "",
        "one": "{processes: 1}",
        "two": "{processes: 1, sampling_processes: 2}",
        "ray": "{nodes: 2, over: ray}",
        "nodes": "{nodes: 2}",
    }.items():
        (tmp_path / name).mkdir()
        plan = plan_of(tmp_path / name, "v1_sft", f"resources: {more}\n" if more else "")
        for card in ("L4:1", "L4:2", "L4:4"):
            found = by_title(plan, Workspace(tmp_path / "w"), card)
            longest = max(one.seconds or 0 for title, one in found.items() if title.startswith("sample"))
            seconds[name, card] = longest - estimate.START_SECONDS  # 4,000 questions x 8
    assert seconds["all", "L4:1"] / seconds["all", "L4:4"] == pytest.approx(4, rel=0.2)
    assert seconds["one", "L4:4"] == seconds["all", "L4:1"]
    assert seconds["two", "L4:4"] == seconds["all", "L4:2"] < seconds["all", "L4:1"]
    assert seconds["ray", "L4:2"] == seconds["all", "L4:4"], "over two machines"
    assert seconds["nodes", "L4:2"] == seconds["all", "L4:2"], "the first machine samples alone"


# --------------------------------------------------------------------------- what was measured


def sample_stage(plan: Plan, condition: str) -> Stage:
    return next(s for s in plan.stages.values() if s.kind == "sample" and s.used_by[0].startswith(condition))


def finish(workspace: Workspace, stage: Stage, seconds: float, **machine: Any) -> None:
    facts = {"kind": stage.kind, "digest": stage.digest, "key": stage.key, "settings": stage.settings}
    facts |= {"seconds": seconds, "machine": machine}
    facts |= {"generation": {"completions": 500, "tokens": 1, "stop_reasons": {}}}
    with workspace.lock(stage.kind, stage.digest) as partial:
        (partial / "artifact").mkdir()
        workspace.commit(stage.kind, stage.digest, Manifest(**facts))


@pytest.mark.slow
def test_earlier_stages_of_the_kind_on_the_same_card_take_over(tmp_path: Path) -> None:
    plan, workspace = plan_of(tmp_path, "v1_sft"), Workspace(tmp_path / "w")
    workspace.create()
    model = by_title(plan, workspace, "L4:1")["sample baseline/seed42"].seconds
    assert model is not None
    # Twice as long as the model says, beside the 20 s of a start.
    finish(workspace, sample_stage(plan, "base/"), 20 + 2 * (model - 20), gpus=["NVIDIA L4"])
    found = by_title(plan, workspace, "L4")
    assert found["sample baseline/seed42"].seconds == pytest.approx(20 + 2 * (model - 20))
    assert found["sample baseline/seed42"].source == "1 earlier stages of the kind"
    assert found["train baseline/seed42"].source == "throughput model"
    for other in ("L40S:1", "L40:1"):
        assert by_title(plan, workspace, other)["sample baseline/seed42"].source == "throughput model"


@pytest.mark.slow
def test_memory_that_was_measured_corrects_the_estimate(tmp_path: Path) -> None:
    plan, workspace = plan_of(tmp_path, "v1_sft"), Workspace(tmp_path / "w")
    workspace.create()
    before = by_title(plan, workspace, "L4:1")["sample baseline/seed42"].allocated
    assert before is not None
    finish(workspace, sample_stage(plan, "base/"), 40, gpus=["NVIDIA L4"], gpu_peak_bytes=round(0.5 * before))
    found = by_title(plan, workspace, "L4:1")
    assert found["sample baseline/seed42"].allocated == pytest.approx(0.5 * before, rel=1e-6)
    assert (
        found["train baseline/seed42"].needed
        == by_title(plan, Workspace(tmp_path / "v"), "L4:1")["train baseline/seed42"].needed
    )


@pytest.mark.slow
def test_a_card_that_is_not_known_is_estimated_by_nothing(tmp_path: Path) -> None:
    plan, workspace = plan_of(tmp_path, "v1_sft"), Workspace(tmp_path / "w")
    workspace.create()
    finish(workspace, sample_stage(plan, "base/"), 40, gpus=["AMD Instinct MI300X"])
    assert by_title(plan, workspace, "MI300X:1")["sample baseline/seed42"].seconds is None


@pytest.mark.slow
def test_a_finished_stage_of_another_plan_counts_with_the_fields_it_ran_with(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "v1_sft")
    stage = next(s for s in plan.stages.values() if s.kind == "train")
    facts: dict[str, Any] = {"kind": "train", "digest": "other", "key": stage.key, "settings": stage.settings}
    facts |= {"machine": {"neutral": {"micro_batch_size": 2, "gradient_checkpointing": True}}}
    facts |= {"training": {"steps": 500, "examples": {"labeled": 1000}}}
    found = work_done(Manifest(**facts), plan)
    assert isinstance(found, Training)
    assert (found.steps, found.rows, found.micro, found.checkpointing) == (500, 4, 2, True)


# --------------------------------------------------------------------------- rows and tokens


def test_the_work_of_a_stage_is_counted_from_its_own_texts(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "v4_grpo")
    stages = {f"{stage.kind} {stage.size}": work_of(stage, plan) for stage in plan.stages.values()}
    train, drawn = stages["train up to 5000 examples, 2500 steps"], stages["sample 4000 questions x 8"]
    assert isinstance(train, Training) and train.drawing is not None and isinstance(drawn, Drawing)
    assert (train.steps, train.rows, train.generations, train.reference, train.old) == (2500, 8, 2500, True, False)
    assert (train.drawing.rows, train.drawing.limit) == (8, 256)
    assert (drawn.rows, drawn.prompts, drawn.samples, drawn.limit) == (32000, 4000, 8, 256)
    assert 80 < drawn.prompt < 130 and drawn.longest + 256 <= train.longest
    assert stages["label 4000 questions"] is None


def test_three_characters_are_a_token() -> None:
    assert [tokens_of(text) for text in ("", "abc", "abcd")] == [0, 1, 2]


# --------------------------------------------------------------------------- searches

SEARCHES = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, test: 40, split: {test: 2}}
verifier: steps
eval: {use: discovery, samples: 64, batch: 8, max_tokens: 64}
conditions:
  sampled: {train_on: []}
  told: {train_on: [], eval: {by: multi_turn, feedback_tokens: 500}}
  learns: {train_on: [], eval: {by: training, trainer: {use: sdpo, num_generations: 16, max_tokens: 64}}}
"""


def test_a_search_is_taken_to_spend_its_budget(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SEARCHES)
    plan = build_plan(load_spec(tmp_path / "toy.yaml"))
    searches = {
        stage.used_by[0].partition("/")[0]: work_of(stage, plan)
        for stage in plan.stages.values()
        if stage.kind == "discover"
    }
    sampled, told, learns = searches["sampled"], searches["told"], searches["learns"]
    assert isinstance(sampled, Drawing) and isinstance(told, Drawing) and isinstance(learns, Training)
    assert (sampled.rows, sampled.prompts, sampled.samples) == (64, 8, 8)
    assert (told.rows, told.prompts, told.samples, told.longest) == (64, 64, 1, 500)
    assert learns.steps == learns.generations == 4
    assert learns.drawing is not None and learns.drawing.rows == 16


def test_a_search_that_ended_early_did_the_batches_that_it_drew(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SEARCHES)
    plan = build_plan(load_spec(tmp_path / "toy.yaml"))
    done = {
        stage.used_by[0].partition("/")[0]: work_done(
            Manifest(kind="discover", digest=stage.digest, key=stage.key, discovery={"solved": True, "samples": 20}),
            plan,
        )
        for stage in plan.stages.values()
        if stage.kind == "discover"
    }
    sampled, told, learns = done["sampled"], done["told"], done["learns"]
    assert isinstance(sampled, Drawing) and isinstance(told, Drawing) and isinstance(learns, Training)
    assert (sampled.rows, sampled.prompts) == (20, 3)  # of 8
    assert (told.rows, told.prompts) == (20, 20)
    assert learns.steps == learns.generations == 2  # of 16


@pytest.mark.slow
def test_feedback_fills_no_more_than_a_model_reads(tmp_path: Path) -> None:
    def allocated(tokens: int) -> float | None:
        (tmp_path / "toy.yaml").write_text(SEARCHES.replace("feedback_tokens: 500", f"feedback_tokens: {tokens}"))
        plan = build_plan(load_spec(tmp_path / "toy.yaml"))
        found = Estimator(plan, Workspace(tmp_path / "w")).on("L4:1").stages
        return next(one.allocated for one in found if one.title.startswith("discover told"))

    few, whole, beyond = allocated(50), allocated(10_000), allocated(32_000)
    assert few is not None and whole is not None
    assert few < whole == beyond
