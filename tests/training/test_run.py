"""The whole path on `tiny`: train, stop, kill, resume, evaluate, generate, merge; through the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataprep.common.errors import BuildError
from tests.support.commands import logged_losses, start_training, training
from tests.support.paths import ROOT
from tests.support.training_builds import chatter, row, write_build
from training.config import RunConfig
from training.errors import DataError, ModelError, OptionError, RunError

TENSORBOARD = find_spec("tensorboard") is not None
STEPS = 16
COMMON = ["--model", "tiny", "--max-steps", str(STEPS), "--save-every", "4", "--eval-every", "8", "--device", "cpu"]


def wait_for(run: Path, step: int, process: subprocess.Popen) -> None:
    """Until the run has logged `step`."""
    until = time.time() + 300
    while time.time() < until and process.poll() is None:
        path = run / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1][-3000:])


@pytest.fixture(scope="module")
def whole(small_build, tmp_path_factory) -> Path:
    """A run from its beginning to its end, on a `latest` that has moved on since, all named by relative paths."""
    folder = tmp_path_factory.mktemp("whole")
    latest, newer = folder / "latest", write_build(folder / "newer", chatter(20, seed=3))
    latest.symlink_to(small_build)
    more = ["--keep", "3", "--stop-prompts", "5", *(["--report-to", "tensorboard"] if TENSORBOARD else [])]
    training("run", "--data", "latest", *COMMON, *more, "--out", "runs/whole", cwd=folder)
    latest.unlink()
    latest.symlink_to(newer)
    return folder / "runs" / "whole"


def test_a_run_learns_and_tells(whole):
    facts = json.loads((whole / "run.json").read_text())
    metrics = facts["metrics"]
    assert facts["status"] == "done" and metrics["held_out_after"] < metrics["held_out_before"] / 2
    ledger = facts["ledger"]["train"]
    assert ledger["tokens_read"] == ledger["tokens_trained"] + ledger["tokens_masked"]
    assert facts["bond"]["version"] and facts["versions"]["trl"] and facts["resolved"]["steps"] == STEPS
    assert [step for step, _ in logged_losses(whole)][-2:] == [STEPS, STEPS]
    assert "<svg" in (whole / "loss.html").read_text()


def test_keep_and_stop_prompts(whole):
    """--keep 3 of the four checkpoints, and --stop-prompts 5."""
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == [
        "step-000008",
        "step-000012",
        "step-000016",
    ]
    assert json.loads((whole / "run.json").read_text())["metrics"]["stop_prompts"] == 5


@pytest.mark.skipif(not TENSORBOARD, reason="the package tensorboard is not installed")
def test_report_to_tensorboard(whole):
    """--report-to tensorboard: the losses of metrics.jsonl, as events beside it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard")).Reload()
    told = [(event.step, pytest.approx(event.value)) for event in events.Scalars("train/loss")]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == told
    assert len(events.Scalars("eval/loss")) == sum("eval_loss" in line for line in lines)


def test_report_to_tensorboard_without_the_package(monkeypatch):
    from training import config

    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install tensorboard"):
        config.check(RunConfig(data=Path("."), model="tiny", report_to="tensorboard"))


def test_the_adapter_opens_with_stock_libraries(whole):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(whole / "adapter")
    assert tokenizer.pad_token != tokenizer.eos_token == "</s>"
    told = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert told == "<s>[INST] Hi [/INST]"
    settings = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(whole / "base")  # --out was relative, and this is another folder
    assert AutoPeftModelForCausalLM.from_pretrained(whole / "adapter").config.vocab_size > 0
    facts = json.loads((whole / "run.json").read_text())
    assert facts["bond"]["version"] in (whole / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("step", [6, 11])
def test_kill_and_resume_is_the_same_run(small_build, tmp_path, whole, step):
    run = tmp_path / "run"
    process = start_training("run", "--data", small_build, *COMMON, "--out", run)
    wait_for(run, step, process)
    process.kill()
    process.wait()
    (run / "checkpoints" / ".partial").mkdir(exist_ok=True)  # as a kill in the middle of a checkpoint leaves it
    training("run", "--data", small_build, *COMMON, "--out", run, "--resume", "auto")
    assert logged_losses(run) == logged_losses(whole)  # bit-equal


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(small_build, tmp_path, whole, number, code):
    run = tmp_path / "run"
    process = start_training("run", "--data", small_build, *COMMON, "--out", run)
    wait_for(run, 5, process)
    process.send_signal(number)
    told = process.communicate()[1]
    assert process.returncode == code and "--resume auto" in told, told[-2000:]
    facts = json.loads((run / "run.json").read_text())
    saved = sorted((run / "checkpoints").glob("step-*"))[-1].name
    assert facts["status"] == f"stopped at step {int(saved[5:])}"
    if number == signal.SIGTERM:
        training("run", "--data", small_build, *COMMON, "--out", run, "--resume", "auto")
        assert logged_losses(run) == logged_losses(whole)


def test_going_on_otherwise_is_refused(small_build, tmp_path, whole):
    for changed, told in ((["--lr", "1e-3"], "lr"), (["--max-tokens", "512"], "max_tokens")):
        done = training("run", "--data", small_build, *COMMON, *changed, "--out", whole, "--resume", "auto", check=1)
        assert told in done.stderr and "began with" in done.stderr
    other = write_build(tmp_path / "other", chatter(60, seed=1))
    done = training("run", "--data", other, *COMMON, "--out", whole, "--resume", "auto", check=1)
    assert "version" in done.stderr or "held out" in done.stderr, done.stderr
    done = training("run", "--data", small_build, *COMMON, "--out", whole, check=1)
    assert "not empty" in done.stderr


def test_evaluate_generate_merge(whole, tmp_path):
    facts = json.loads(
        training("evaluate", "--run", whole, "--prompts", "4", "--max-new-tokens", "32", "--json").stdout
    )
    recorded = json.loads((whole / "run.json").read_text())["metrics"]
    assert facts["after"]["loss"] == pytest.approx(recorded["held_out_after"], abs=1e-4)
    assert facts["before"]["loss"] == pytest.approx(recorded["held_out_before"], abs=1e-4)
    assert training(
        "generate", "--run", whole, "--prompt", "Say moon 2 times.", "--max-new-tokens", "16"
    ).stdout.strip()
    to = tmp_path / "merged"
    told = training("merge", "--run", whole, "--to", to).stdout
    difference = float(told.split("Largest logit difference ")[1].split(",")[0])
    assert difference < 0.005, told

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(to)
    ids = AutoTokenizer.from_pretrained(to)("[INST] hi", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()
    done = training("merge", "--run", whole, "--to", to, check=1)
    assert "not empty" in done.stderr


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the whole run, to change; takes changes of run.json by their path."""

    def change(**changes):
        shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
        path = tmp_path / "copy" / "run.json"
        facts = json.loads(path.read_text())
        for name, value in changes.items():
            part, key = name.split("__")
            facts[part][key] = value
        path.write_text(json.dumps(facts))
        return path.parent

    return change


def test_what_comes_after_keeps_the_runs_arithmetic(copied, whole):
    """A run of a GPU is evaluated and merged here in its own type: NF4 keeps another value of the same weight in fp32."""
    from training.after.evaluate import open_run
    from training.after.merge import Deltas

    path = copied(
        place__precision="bf16", options__device="cuda", options__attention="varlen", options__kernels="liger"
    )
    run = open_run(path)
    assert (run.place.device.split(":")[0], run.place.precision) != ("cpu", "fp32")
    assert str(Deltas(run).dtype) == "torch.bfloat16"
    assert open_run(whole).place.precision == "fp32"


def test_what_comes_after_keeps_the_runs_model(copied, monkeypatch):
    from training.after import evaluate

    path = copied(options__model="org/name", model__revision="abc")
    monkeypatch.setattr(evaluate, "load_tokenizer", lambda name, revision: (name, revision))
    run = evaluate.open_run(path)
    assert run.vocabulary == ("org/name", "abc") and run.config.revision == "abc"


def test_another_model_in_the_runs_folder_is_refused(copied):
    from training.after.evaluate import open_run

    path = copied()
    config = path / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match="another model"):
        open_run(path)


def test_nothing_is_merged_that_cannot_be_checked(copied, tmp_path):
    from training.after.merge import merge

    path = copied(operational__data=str(tmp_path / "gone"))
    with pytest.raises(BuildError):
        merge(path, tmp_path / "merged", check=True)
    assert not list(tmp_path.glob("merged*"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is no folder"):
        merge(path, tmp_path / "file", check=False)


def test_damaged_weights(whole, tmp_path):
    from training.after.merge import read_weights
    from training.model.base import load_base
    from training.model.runtime import Runtime

    folder = shutil.copytree(whole / "base", tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(ModelError, match="cannot be read"):
        read_weights(weights)
    place = Runtime("cpu", "fp32", "dataprep_segments", liger=False)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(str(folder), None, RunConfig(data=tmp_path, model=str(folder)), place)


@pytest.mark.parametrize("values, told", [
    ({"max_new_tokens": 0}, "--max-new-tokens"), ({"temperature": -1.0}, "--temperature"), ({"seed": -1}, "--seed"),
])  # fmt: skip
def test_answers_to_values_that_make_no_sense(values, told):
    from training.after.evaluate import evaluate, generate

    with pytest.raises(OptionError, match=told):
        generate(Path("none"), "Hi", None, **{"max_new_tokens": 1, "temperature": 0.0, "seed": 0} | values)
    with pytest.raises(OptionError, match="--prompts"):
        evaluate(Path("none"), 0, 1)


def test_bad_input_is_one_sentence(small_build, tmp_path):
    cases = [
        (["--data", tmp_path / "none", "--model", "tiny"], 1, "There is no build"),
        (["--data", small_build, "--model", tmp_path / "none"], 1, "does not exist: give a folder"),
        (["--data", small_build], 2, "model"),
        (["--data", small_build, "--model", "tiny", "--epcohs", "2"], 2, "--epochs"),
    ]
    for arguments, code, told in cases:
        done = training("run", *arguments, "--out", tmp_path / "run", check=code)
        assert told in done.stderr + done.stdout and "Traceback" not in done.stderr, done.stderr
    empty = tmp_path / "model"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    done = training("run", "--data", small_build, "--model", empty, "--out", tmp_path / "run", check=1)
    assert "has no tokenizer" in done.stderr


def test_a_damaged_build_leaves_with_4(tmp_path):
    build = write_build(tmp_path / "build", chatter(20))
    shard = next(build.glob("train/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    done = training("run", "--data", build, "--model", "tiny", "--out", tmp_path / "run", check=4)
    assert "damaged" in done.stderr


def test_a_large_model_without_a_gpu_points_to_tiny(small_build, tmp_path):
    from training.model.tiny import train_tokenizer

    folder = tmp_path / "llama"
    folder.mkdir()
    train_tokenizer(["text"], ["<s>", "</s>"]).backend.save(str(folder / "tokenizer.json"))
    shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
             "vocab_size": 32000, "model_type": "llama"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    done = training(
        "run", "--data", small_build, "--model", folder, "--device", "cpu", "--out", tmp_path / "r", check=1
    )
    assert "6.7 billion" in done.stderr and "tiny" in done.stderr


def test_inspect_and_plan(small_build):
    lines = training("inspect", "--data", small_build, "--model", "tiny", "--rows", "0:5", "--json").stdout.splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 5 and len(first["input_ids"]) == len(first["labels"])
    assert "trained" in training("inspect", "--data", small_build, "--model", "tiny", "--row", "3").stdout
    facts = json.loads(training("plan", "--data", small_build, "--model", "tiny", "--gpu", "t4", "--json").stdout)
    assert facts["steps"] == 60 and facts["memory_gib"]["total"] < 14


def test_two_processes_equal_one(tmp_path):
    """The same windows in the same steps, each trained once: the same losses, to rounding."""
    build = write_build(tmp_path / "b", chatter(400), chatter(8))  # 6 windows: nothing to be split for two processes
    options = ["--data", build, "--model", "tiny", "--device", "cpu", "--max-steps", "4", "--stop-prompts", "0",
               "--tokens-per-step", "4096", "--micro-batch", "1"]  # fmt: skip
    training("run", *options, "--out", tmp_path / "one")
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training.cli", "run"]
    done = subprocess.run(
        [sys.executable, *launched, *map(str, options), "--out", str(tmp_path / "two")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = logged_losses(tmp_path / "one"), logged_losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_help_loads_nothing_heavy():
    assert "--max-tokens" in training("run", "--help").stdout
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"}
    code = "import sys, training.cli; print([name for name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
    assert not heavy & set(eval(loaded))  # noqa: S307 - our own output


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_broken_facts_of_a_model(whole, tmp_path, file):
    from training.model.sizes import read_model_config
    from training.model.tokenizer import load_tokenizer

    folder = shutil.copytree(whole / "base", tmp_path / "base")
    (folder / file).write_text('{"hidden_size": ')
    with pytest.raises(ModelError, match=f"{file} is not a readable JSON object"):
        read_model_config(str(folder), None)
        load_tokenizer(str(folder))


def test_build_and_model_are_named_in_full(tmp_path, monkeypatch, capsys):
    """--data and --model as whole paths; `latest` of a run that has begun is what it began with."""
    from training.run import _in_full

    for name in ("one", "two", "model"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    Path("latest").symlink_to("two")
    config = RunConfig(data=Path("latest"), model="model", out=Path("run"), resume="auto")
    full = _in_full(config)
    assert full.data == tmp_path / "two" and full.model == str(tmp_path / "model")
    Path("run").mkdir()
    Path("run/run.json").write_text(json.dumps({"operational": {"data": str(tmp_path / "one")}}))
    assert _in_full(config).data == tmp_path / "one"
    assert f"goes on with {tmp_path / 'one'}" in capsys.readouterr().err
    assert _in_full(replace(config, data=Path("two"))).data == tmp_path / "two"  # and is refused by its version
    assert _in_full(replace(config, model="tiny")).model == "tiny"


def test_a_failed_run_says_so_in_out(small_build, tmp_path, monkeypatch):
    from training import run

    def fail(*_):
        raise DataError("Nothing works.")

    monkeypatch.setattr(run, "_train", fail)
    config = RunConfig(data=small_build, model="tiny", device="cpu", out=tmp_path / "out", max_tokens=256, max_steps=1)
    with pytest.raises(DataError):
        run.run(config)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed: Nothing works."


def vocabulary_with(template):
    from training.model.tiny import train_tokenizer

    vocabulary = train_tokenizer(["text"], ["<s>", "</s>"])
    marks = {"bos_token": "<s>", "eos_token": "</s>"}
    return replace(vocabulary, config=vocabulary.config | marks, chat_template=template)


def test_another_template_is_a_warning_that_shows_both(small_build, capsys):
    from dataprep.contract import open_build
    from tests.support.training_builds import CHATML, LLAMA2
    from training.run import warn_of_other_template

    build = open_build(small_build)
    assert warn_of_other_template(build, vocabulary_with(None)) is None
    assert warn_of_other_template(build, vocabulary_with(LLAMA2)) is None
    said = warn_of_other_template(build, vocabulary_with(CHATML))
    assert "[INST] Hello? [/INST]" in said and "<|im_start|>user" in said and said in capsys.readouterr().err
    strict = vocabulary_with("{{ raise_exception('a system text is wanted') }}")
    assert "a system text is wanted" in warn_of_other_template(build, strict)


def test_the_presets_faults_are_told(small_build, capsys):
    from training.config import NOTEBOOK_FAULTS
    from training.data.training_data import load_training_data, open_training_build
    from training.model.runtime import choose_runtime
    from training.run import _tell

    config = RunConfig(data=small_build, model="tiny", device="cpu", preset="notebook")
    prepared = load_training_data(config, open_training_build(config), vocabulary_with(None))
    _tell(config, prepared, choose_runtime(config))
    told = capsys.readouterr().err
    assert all(fault in told for fault in NOTEBOOK_FAULTS)
    _tell(replace(config, preset=None), prepared, choose_runtime(config))
    assert "notebook" not in capsys.readouterr().err


def test_the_loss_page_escapes():
    from training.after.adapter import loss_page

    page = loss_page([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], "<script>a & b</script>")
    assert "<script>" not in page and page.count("&lt;script&gt;a &amp; b") == 2
    assert '<polyline class="curve s0"' in page


def test_what_a_kill_left_of_an_old_checkpoint_goes(tmp_path):
    from training.run_folder import RunFolder, rotate

    for name in ("step-000004", "step-000008", "step-000012", ".partial-step-000002"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    rotate(RunFolder(tmp_path), 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000008", "step-000012"]


def test_a_full_disk_at_a_checkpoint(tmp_path):
    from training.errors import RunError
    from training.run_folder import explain

    told = explain(OSError(28, "No space left on device"), "The checkpoint")
    assert isinstance(told, RunError) and "disk is full" in str(told)
    assert "disk is full" in str(explain(RuntimeError("PytorchStreamWriter failed: file write failed"), "x"))
    assert explain(ValueError("other"), "x") is None


def test_a_loss_that_is_no_number_or_zero_ends_the_run():
    from training.errors import Diverged
    from training.loop.callbacks import check_loss

    for loss in (float("nan"), float("inf"), 0.0):
        with pytest.raises(Diverged, match="training inspect"):
            check_loss(loss, 3)
    check_loss(1.5, 3)


def test_no_tree_is_lost_without_a_word(tmp_path):
    """A window too short for some rows: the log says what was cut, run.json names what was dropped."""
    rows = [row(f"t{n}", [("hello " * (n % 30), "yes " * (1 + n % 40))] * 2) for n in range(60)]
    build = write_build(tmp_path / "b", rows, chatter(8))
    done = training("run", "--data", build, *COMMON[:2], "--max-steps", "1", "--max-tokens", "64",
                    "--out", tmp_path / "r", "--stop-prompts", "0")  # fmt: skip
    ledger = json.loads((tmp_path / "r" / "run.json").read_text())["ledger"]["train"]
    assert ledger["rows_cut"] and f"{ledger['rows_cut']} conversations were longer" in done.stderr
    assert ledger["rows_read"] == ledger["rows"] + ledger["rows_dropped"] + ledger["rows_untrained"]
    for name in ledger["dropped"]:
        assert name in done.stderr
