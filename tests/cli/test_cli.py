"""The commands as a user meets them: what is printed where, exit codes, and one sentence for each mistake."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataprep.common.bundled import default_name
from dataprep.common.errors import DamagedBuild
from dataprep.contract import open_build
from dataprep.store.verification import verify_build
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text
from tests.support.commands import dataprep, dataprep_error


@pytest.fixture
def source(tmp_path: Path) -> str:
    return guanaco_file(tmp_path, GUANACO_TEXTS)


@pytest.fixture
def built(tmp_path: Path, source: str) -> Path:
    done = dataprep("build", "--source", source, "--store", tmp_path / "store", "--json", "--split", "test=5")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["path"])


def test_the_bundled_sample_is_built_and_said_to_be_synthetic(tmp_path: Path) -> None:
    done = dataprep("build", "--template", "llama2", "--sample", "1000", "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stderr
    assert "--source" in done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path / "sample"
    assert open_build(path).splits["train"].num_rows == 1000
    assert re.search(r"^kept +1,000", done.stderr, re.MULTILINE)


def test_json_is_one_object_and_the_rest_goes_to_stderr(tmp_path: Path, source: str) -> None:
    done = dataprep(
        "build", "--source", source, "--store", tmp_path / "store", "--json", "--near-dup", "off", "--gate", "off"
    )
    summary = json.loads(done.stdout)
    assert {"name", "version", "path", "rows", "splits", "fates", "seconds"} <= summary.keys()
    assert (summary["name"], summary["rows"], summary["splits"]["train"]["rows"]) == ("rows", 33, 33)
    assert re.fullmatch("[0-9a-f]{12}", summary["version"])
    assert sum(summary["fates"][fate] for fate in ("kept", "dropped", "not_sampled")) == len(GUANACO_TEXTS)


def test_a_dry_run_shows_the_funnel_and_writes_nothing(tmp_path: Path, source: str) -> None:
    done = dataprep("build", "--source", source, "--store", tmp_path / "store", "--dry-run")
    assert "exact_duplicate" in done.stderr
    assert not (tmp_path / "store").exists()
    summary = json.loads(dataprep("build", "--source", source, "--dry-run", "--json").stdout)
    assert (summary["path"], summary["rows"]) == (None, 33)


def test_show_marks_what_is_trained(built: Path) -> None:
    done = dataprep("show", built, "--row", "0")
    assert re.search(r"<s>\[INST\] .* \[/INST\]⟦ .* </s>⟧", done.stdout)
    record = json.loads(dataprep("show", built, "--split", "test", "--row", "2", "--json").stdout)
    assert record["text"].startswith("<s>[INST]")
    assert "its rows are 0 to 4" in dataprep_error(1, "show", built, "--split", "test", "--row", "5")
    assert "Available: train, test" in dataprep_error(1, "show", built, "--split", "dev")


def test_show_is_in_colour_on_a_terminal_and_sends_no_strangers_escapes(tmp_path: Path) -> None:
    source = guanaco_file(tmp_path, [guanaco_text("clear \x1b[2J me [bold]x[/bold]", "right \u202e to left \x07")])
    path = json.loads(dataprep("build", "--source", source, "--store", tmp_path / "s", "--json").stdout)["path"]
    plain = dataprep("show", path).stdout
    coloured = dataprep(
        "show", path, env={**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    ).stdout
    assert "\x1b[32m" in coloured
    for shown in (plain, coloured):
        assert "<U+001B>[2J" in shown
        assert "<U+202E>" in shown
        assert "\x1b[2J" not in shown
        assert "\u202e" not in shown
        assert "[bold]x[/bold]" in shown


def test_why_tells_each_fate(built: Path, tmp_path: Path) -> None:
    import polars as pl

    fates = pl.read_parquet(built / "fates/*.parquet")
    for rule in ("control_token", "exact_duplicate", "no_answer"):
        record = fates.filter(rule=rule)["id"][0]
        told = dataprep("why", built, record).stdout
        assert rule in told
        assert "rows.jsonl, line" in told
    survivor = fates.filter(rule="exact_duplicate")
    assert survivor["survivor"][0] in dataprep("why", built, survivor["id"][0]).stdout
    cut = fates.filter(pl.col("repairs").list.len() > 0)["id"][0]
    told = dataprep("why", built, cut).stdout
    assert "dangling_question: and then?" in told
    assert "kept" in told
    assert json.loads(dataprep("why", built, cut, "--json").stdout)["fates"][0]["fate"] == "kept"
    assert "No record 'nobody'" in dataprep_error(1, "why", built, "nobody")
    place = fates.filter(rule="no_answer").select("source", "line").row(0)
    assert "no_answer" in dataprep("why", built, f"{place[0]}:{place[1]}").stdout


def test_why_tells_the_stages_that_a_record_passed(built: Path) -> None:
    import polars as pl

    fates = pl.read_parquet(built / "fates/*.parquet")
    for rule, passed in (("no_answer", "read, threads"), ("exact_duplicate", "read, threads, rules")):
        assert f"  passed    {passed}\n" in dataprep("why", built, fates.filter(rule=rule)["id"][0]).stdout
    kept = fates.filter(fate="kept")["id"][0]
    assert "  passed    read, threads, rules, dedup, render, select\n" in dataprep("why", built, kept).stdout
    found = json.loads(dataprep("why", built, "rows.jsonl:7", "--json").stdout)["fates"]
    assert [(row["rule"], row["passed"]) for row in found] == [("no_role_marker", [])]


def test_names_of_strangers_are_no_markup_and_steer_no_terminal(tmp_path: Path) -> None:
    name = "a\x1b[31m[bold].jsonl"
    source = guanaco_file(tmp_path, GUANACO_TEXTS, name)
    done = dataprep("build", "--source", source, "--store", tmp_path / "store", "--name", "n")
    assert done.returncode == 0, done.stderr
    assert "cannot be read; the first is in line 7 of a<U+001B>[31m[bold].jsonl" in done.stderr
    unknown = _file(tmp_path, "u.jsonl", json.dumps({"\x9b2J\u202e": 1}).encode())
    for sentence in (
        dataprep_error(1, "build", "--source", unknown),
        dataprep_error(1, "build", "--source", f"{source}.gz"),
    ):
        assert "<U+" in sentence
        assert not {"\x1b", "\x9b", "\u202e"} & set(done.stderr + sentence)


def test_verify_names_the_damaged_file(built: Path, tmp_path: Path) -> None:
    assert "is whole: 33 rows" in dataprep("verify", built).stdout
    assert dataprep("verify", "rows", "--store", tmp_path / "store").returncode == 0
    for damaged in ("train/data-00000-of-00001.arrow", "fates/fates-00000.parquet", "README.md", "manifest.json"):
        file = built / damaged
        sound = file.read_bytes()
        file.write_bytes(sound[: len(sound) // 2])
        assert damaged in dataprep_error(4, "verify", built)
        file.write_bytes(sound)
    shard = built / "train/data-00000-of-00001.arrow"
    sound = shard.read_bytes()
    for place in range(0, 1200, 50):  # whatever a flipped bit makes of the file, it is found before it is parsed
        shard.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        with pytest.raises(DamagedBuild, match=shard.name):
            verify_build(built)
    shard.write_bytes(sound)
    (built / "fates").rename(tmp_path / "fates")
    assert "fates-00000.parquet cannot be read" in dataprep_error(4, "why", built, "x")
    (tmp_path / "fates").rename(built / "fates")
    (built / "template.jinja").rename(tmp_path / "away")
    assert "template.jinja is missing" in dataprep_error(4, "verify", built)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("fates rules no_answer", 2),
        ("fates dropped", 1),
        ("funnel 1 out", 7),
        ("funnel 0 rules", {}),
        ("kinds line", 9),
        ("repairs", {}),
        ("languages", {"en": 33}),
        ("rows", 7),
        ("splits train rows", 7),
        ("splits train shards 0 rows", 1),
        ("splits train", {}),
        ("version", "0" * 12),
        ("funnel", None),
        ("files README.md", None),
        ("files train/state.json", None),
    ],
)
def test_verify_adds_up_what_the_manifest_says(built: Path, path: str, value: object) -> None:
    manifest = built / "manifest.json"
    facts = json.loads(manifest.read_text())
    *way, last = (int(step) if step.isdigit() else step for step in path.split())
    inner = facts
    for step in way:
        inner = inner[step]
    assert inner[last] != value
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    manifest.write_text(json.dumps(facts))
    with pytest.raises(DamagedBuild, match=r"manifest\.json|holds other rows|other columns or rows"):
        verify_build(built)


def test_verify_notices_files_that_are_no_part_of_the_build(built: Path, tmp_path: Path) -> None:
    for name in ("train/cache-1f.arrow", ".DS_Store"):  # of datasets, and of other programs
        (built / name).write_text("x")
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    assert verify_build(built)["rows"] == verify_build(copy)["rows"] == 33
    (copy / "train/extra.arrow").write_text("x")
    with pytest.raises(DamagedBuild, match=r"train/extra.arrow is in no entry of manifest.json"):
        verify_build(copy)
    other = built.rename(built.with_name("0123456789ab"))
    with pytest.raises(DamagedBuild, match=f"is the one of version {built.name}, not of 0123456789ab"):
        verify_build(other)


def test_templates_are_listed_checked_and_render(tmp_path: Path) -> None:
    listed = json.loads(dataprep("templates", "--json").stdout)
    assert {"llama2", "chatml", "llama3", "mistral", "zephyr", "vicuna", "alpaca", "gemma"} <= {
        t["name"] for t in listed
    }
    assert "llama2" in dataprep("templates").stdout
    told = dataprep("templates", "check", "llama2")
    assert told.returncode == 0
    assert "rendered: by columns" in told.stdout
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yes"}]))
    assert dataprep("templates", "render", "llama2", "--messages", chat).stdout == "<s>[INST] Hi [/INST] Yes </s>"
    swapped = dataprep("templates", "render", "llama2", "--messages", chat, "--bos", "<b>", "--eos", "<e>").stdout
    assert swapped == "<b>[INST] Hi [/INST] Yes <e>"


def test_mistakes_are_one_sentence(tmp_path: Path, source: str) -> None:
    store = ("--store", tmp_path / "store")
    assert "Did you mean 'llama2'?" in dataprep_error(1, "build", "--source", source, "--template", "lama2", *store)
    assert "cannot be a build's name" in dataprep_error(1, "build", "--source", source, "--name", "../../x", *store)
    assert "--source is empty" in dataprep_error(1, "build", "--source", "", *store)
    assert "--system is blank" in dataprep_error(1, "build", "--source", source, "--system", " ", *store)
    assert "--system holds [INST]" in dataprep_error(1, "build", "--source", source, "--system", "a [INST] b", *store)
    several = _file(tmp_path, "tokenizer_config.json", b'{"chat_template": [{"a": "1", "b": "2"}]}')
    assert "none named 'default'" in dataprep_error(1, "templates", "check", several)
    assert "holds no options" in dataprep_error(
        1, "build", "--recipe", _file(tmp_path, "m.json", b'{"recipe": []}'), *store
    )
    assert "--sample is 0" in dataprep_error(1, "build", "--source", source, "--sample", "0", *store)
    assert "There is no file or folder none.jsonl" in dataprep_error(1, "build", "--source", "none.jsonl", *store)
    assert "There is no build 'n'" in dataprep_error(1, "show", "n", *store)
    assert "unknown key" in dataprep_error(1, "build", "--recipe", _file(tmp_path, "r.toml", b"x = 1"), *store)
    empty = _file(tmp_path, "empty.jsonl", b"")
    assert "empty.jsonl" in dataprep_error(1, "build", "--source", empty, *store)
    broken = _file(tmp_path, "broken.jinja", b"line\n{% if %}")
    assert re.search(
        r"broken\.jinja.*line 2", dataprep_error(1, "build", "--source", source, "--template", broken, *store)
    )
    escape = _file(tmp_path, "escape.jinja", b"{{ messages.__class__.__mro__ }}")
    assert "escape" in dataprep_error(1, "build", "--source", source, "--template", escape, *store)
    assert not list((tmp_path / "store").glob("*/*")) if (tmp_path / "store").exists() else True


def _file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    "arguments",
    [("build", "--sample", "many"), ("build", "--paths", "best"), ("build", "--nonsense"), ("bild",), ("show",)],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert dataprep_error(2, *arguments)


def test_a_source_may_be_several_files_as_a_shell_gives_them(tmp_path: Path) -> None:
    files = [guanaco_file(tmp_path, [guanaco_text(f"question {n}", f"answer {n}")], f"{n}.jsonl") for n in range(3)]
    done = dataprep("build", "--source", *files, "--lang", "en", "de", "--dry-run", "--json", "--near-dup", "off")
    assert "Nothing would be left" in done.stderr and "3 language" in done.stderr
    done = dataprep("build", "--source", files[0], files[1], "--source", files[2], "--dry-run", "--json")
    assert json.loads(done.stdout)["rows"] == 3


def test_default_names(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chats/deep").mkdir(parents=True)
    (tmp_path / "a[1].jsonl").write_text("")
    monkeypatch.chdir(tmp_path / "chats")
    for source, name in {
        "../rows.jsonl": "rows",
        "org/name@main:train": "name",
        "../chats/*.jsonl": "chats",
        "../chats/**/*.jsonl": "chats",
        "*.jsonl": "chats",
        ".": "chats",
        "../a[1].jsonl": "a-1",
        str(built): "rows",
        str(built.with_name("latest")): "rows",
        "../x/ä.jsonl": "build-e1beef6f",
    }.items():
        assert default_name((source,)) == name, source
    assert default_name(()) == "sample"


def test_a_failure_under_json_is_an_object_too(tmp_path: Path) -> None:
    done = dataprep("build", "--source", "none.jsonl", "--json")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 1


def test_bad_lines_become_fates_and_nothing_else_is_lost(tmp_path: Path) -> None:
    good = [json.dumps({"text": guanaco_text(f"q{n}", f"a{n}")}).encode() for n in range(100)]
    bad = [b'{"text": "### Human: cut', b'{"text": "\xff### Human: x### Assistant: y"}', b'{"other": 1}', b"[1, 2]"]
    file = _file(tmp_path, "mixed.jsonl", b"\n".join([*good[:50], *bad, *good[50:]]))
    done = dataprep("build", "--source", file, "--store", tmp_path / "store", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["fates"]["kept"], summary["fates"]["dropped"]) == (100, 4)


def test_a_truncated_gz_keeps_what_was_whole(tmp_path: Path) -> None:
    import random

    random.seed(3)
    noise = ["".join(random.choices("abcdefghij ", k=400)) for _ in range(400)]
    packed = gzip.compress(
        "".join(json.dumps({"text": guanaco_text(f"q{n}", text)}) + "\n" for n, text in enumerate(noise)).encode()
    )
    file = _file(tmp_path, "cut.jsonl.gz", packed[: len(packed) * 3 // 4])
    done = dataprep("build", "--source", file, "--store", tmp_path / "store", "--json")
    assert done.returncode == 0, done.stderr
    fates = json.loads(done.stdout)["fates"]
    assert fates["kept"] > 200
    assert fates["dropped"] == 1
    assert "cut.jsonl.gz breaks off" in json.loads(done.stdout)["notes"][0]


def test_a_store_that_cannot_be_written(tmp_path: Path, source: str) -> None:
    blocked = _file(tmp_path, "blocked", b"")
    assert "blocked" in dataprep_error(1, "build", "--source", source, "--store", blocked / "store")


def test_a_disk_that_fills_up_half_way(tmp_path: Path, source: str) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = dataprep("build", "--source", source, "--store", tmp_path / "store", preexec_fn=little_room)
    assert done.returncode == 1
    assert "nothing was published" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [entry for entry in (tmp_path / "store/rows").iterdir() if not entry.name.startswith(".lock")]


def large(folder: Path) -> str:
    return guanaco_file(
        folder,
        [guanaco_text(f"question {n} " + "x" * 300, f"answer {n} " + "y" * 300) for n in range(60_000)],
        "large.jsonl",
    )


def start(source: str, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dataprep", "build", "--source", source, "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def visible(store: Path) -> list[str]:
    return [entry.name for entry in store.glob("*/*") if not entry.name.startswith(".")]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_at_any_moment_no_half_version_is_seen(tmp_path: Path, sign: signal.Signals) -> None:
    source, store = large(tmp_path), tmp_path / "store"
    for wait in (0.3, 0.7, 1.1, 1.5):
        process = start(source, store)
        time.sleep(wait)
        process.send_signal(sign)
        _, told = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == (130 if sign == signal.SIGINT else -sign), told
        assert "Traceback" not in told
        for name in visible(store):  # it may have been done but for the goodbye
            assert name == "latest" or dataprep("verify", store / "large" / name).returncode == 0
    done = dataprep("build", "--source", source, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    assert dataprep("verify", "large", "--store", store).returncode == 0
    assert not list(store.glob("*/.tmp-*"))


def test_two_builds_of_one_name_at_once_both_end_well(tmp_path: Path) -> None:
    source, store = large(tmp_path), tmp_path / "store"
    both = [start(source, store), start(source, store)]
    for process in both:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    assert dataprep("verify", "large", "--store", store).returncode == 0
    assert len([name for name in visible(store) if name != "latest"]) == 1


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = "import sys, dataprep.cli; print([m for m in ('polars', 'pyarrow', 'datasets', 'torch', 'jinja2') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    for command in ([], ["build"], ["show"], ["why"], ["verify"], ["templates"], ["templates", "check"]):
        done = dataprep(*command, "--help")
        assert done.returncode == 0
        assert "Usage: dataprep" in done.stdout
