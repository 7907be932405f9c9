"""The whole path on `tiny`: train, stop, kill, resume, evaluate, generate, merge; through the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.builds import chatter, row, write_build

ROOT = Path(__file__).resolve().parents[2]
STEPS = 16
COMMON = ["--model", "tiny", "--max-steps", str(STEPS), "--save-every", "4", "--eval-every", "8", "--device", "cpu"]


def training(*arguments: str | Path, check: int | None = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "training.cli", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    if check is not None:
        assert done.returncode == check, done.stderr[-3000:]
    return done


def started(*arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "training.cli", *map(str, arguments)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in lines]


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
    """A run from its beginning to its end."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    training("run", "--data", small_build, *COMMON, "--out", run)
    return run


def test_a_run_learns_and_tells(whole):
    facts = json.loads((whole / "run.json").read_text())
    metrics = facts["metrics"]
    assert facts["status"] == "done" and metrics["held_out_after"] < metrics["held_out_before"] / 2
    ledger = facts["ledger"]["train"]
    assert ledger["tokens_read"] == ledger["tokens_trained"] + ledger["tokens_masked"]
    assert facts["bond"]["version"] and facts["versions"]["trl"] and facts["resolved"]["steps"] == STEPS
    assert [step for step, _ in losses(whole)][-2:] == [STEPS, STEPS]
    assert len(list((whole / "checkpoints").iterdir())) == 2
    assert "<svg" in (whole / "loss.html").read_text()


def test_the_adapter_opens_with_stock_libraries(whole):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(whole / "adapter")
    assert tokenizer.pad_token != tokenizer.eos_token == "</s>"
    told = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert told == "<s>[INST] Hi [/INST]"
    settings = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert Path(settings["base_model_name_or_path"]) == whole / "base"
    assert AutoPeftModelForCausalLM.from_pretrained(whole / "adapter").config.vocab_size > 0
    facts = json.loads((whole / "run.json").read_text())
    assert facts["bond"]["version"] in (whole / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("step", [6, 11])
def test_kill_and_resume_is_the_same_run(small_build, tmp_path, whole, step):
    run = tmp_path / "run"
    process = started("run", "--data", small_build, *COMMON, "--out", run)
    wait_for(run, step, process)
    process.kill()
    process.wait()
    (run / "checkpoints" / ".partial").mkdir(exist_ok=True)  # as a kill in the middle of a checkpoint leaves it
    training("run", "--data", small_build, *COMMON, "--out", run, "--resume", "auto")
    assert losses(run) == losses(whole)  # bit-equal


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(small_build, tmp_path, whole, number, code):
    run = tmp_path / "run"
    process = started("run", "--data", small_build, *COMMON, "--out", run)
    wait_for(run, 5, process)
    process.send_signal(number)
    told = process.communicate()[1]
    assert process.returncode == code and "--resume auto" in told, told[-2000:]
    facts = json.loads((run / "run.json").read_text())
    saved = sorted((run / "checkpoints").glob("step-*"))[-1].name
    assert facts["status"] == f"stopped at step {int(saved[5:])}"
    if number == signal.SIGTERM:
        training("run", "--data", small_build, *COMMON, "--out", run, "--resume", "auto")
        assert losses(run) == losses(whole)


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


def test_bad_input_is_one_sentence(small_build, tmp_path):
    cases = [
        (["--data", tmp_path / "none", "--model", "tiny"], 1, "There is no build"),
        (["--data", small_build, "--model", tmp_path / "none"], 1, "There is no model folder"),
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
    from training.tiny import learn_vocabulary

    folder = tmp_path / "llama"
    folder.mkdir()
    learn_vocabulary(["text"], ["<s>", "</s>"]).backend.save(str(folder / "tokenizer.json"))
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
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_help_loads_nothing_heavy():
    assert "--max-tokens" in training("run", "--help").stdout
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"}
    code = "import sys, training.cli; print([name for name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
    assert not heavy & set(eval(loaded))  # noqa: S307 - our own output


def test_a_full_disk_at_a_checkpoint(tmp_path):
    from training.errors import RunError
    from training.folder import explain

    told = explain(OSError(28, "No space left on device"), "The checkpoint")
    assert isinstance(told, RunError) and "disk is full" in str(told)
    assert "disk is full" in str(explain(RuntimeError("PytorchStreamWriter failed: file write failed"), "x"))
    assert explain(ValueError("other"), "x") is None


def test_a_loss_that_is_no_number_or_zero_ends_the_run():
    from training.errors import Diverged
    from training.watch import look_at

    for loss in (float("nan"), float("inf"), 0.0):
        with pytest.raises(Diverged, match="training inspect"):
            look_at(loss, 3)
    look_at(1.5, 3)


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
