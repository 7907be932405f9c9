"""Writing the repaired rows and the page: what is written, what is left out, and what must never be overwritten."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from dataprep.audit import audit_file, write_repaired
from dataprep.common.errors import InputError
from tests.support.audits import ODD_SPACE, PAIR, read_records, write_records, write_texts
from tests.support.commands import dataprep, dataprep_error
from tests.support.paths import ROOT

UNREADABLE = "there is no marker at all"
DOUBLED = "<s><s>[INST] a [/INST] b </s>"


def test_the_command_writes_repaired_rows_and_a_page(tmp_path: Path) -> None:
    file = write_texts(tmp_path, [PAIR.format("a", "c"), DOUBLED, UNREADABLE, PAIR.format("a", "c")])
    out, page = tmp_path / "out.jsonl", tmp_path / "r.html"
    done = dataprep("audit", file, "--repaired", out, "--report", page, "--json")
    repaired = json.loads(done.stdout)["repaired"]
    assert repaired == {"path": str(out), "written": 2, "repaired": 1, "left_out_rows": [2, 3]}
    assert all(record["text"].count("<s>") == 1 for record in read_records(out))
    assert "Faulty rows" in page.read_text()


def test_other_columns_and_sound_texts_are_written_unchanged(tmp_path: Path) -> None:
    texts = [ODD_SPACE, UNREADABLE, DOUBLED]
    records = [{"id": n, "text": text, "half": "\ud83d"} for n, text in enumerate(texts)]
    file = write_records(tmp_path / "set.jsonl", records)
    assert write_repaired(audit_file(file), tmp_path / "out.jsonl")["left_out_rows"] == [1]
    assert read_records(tmp_path / "out.jsonl") == [records[0], {**records[2], "text": "<s>[INST] a [/INST] b </s>"}]


def test_conversations_under_other_keys_are_written_as_messages(tmp_path: Path) -> None:
    chat = {"n": 1, "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    write_repaired(audit_file(write_records(tmp_path / "set.jsonl", [chat])), tmp_path / "out.jsonl")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert read_records(tmp_path / "out.jsonl") == [{"n": 1, "messages": messages}]


def test_a_fault_of_all_rows_is_repaired_in_each(tmp_path: Path) -> None:
    file = write_texts(tmp_path, [f"[INST] {n} [/INST] b </s>" for n in range(3)])
    assert write_repaired(audit_file(file), tmp_path / "out.jsonl")["left_out_rows"] == []
    assert all(record["text"].startswith("<s>") for record in read_records(tmp_path / "out.jsonl"))


def test_parquet_is_written_with_the_types_of_its_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, 2], "at": [date(2026, 1, 1)] * 2, "text": [ODD_SPACE, UNREADABLE]})
    frame.write_parquet(tmp_path / "set.parquet")
    write_repaired(audit_file(tmp_path / "set.parquet"), tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").equals(frame[:1])


def test_no_input_is_overwritten_and_bad_outputs_are_refused(tmp_path: Path) -> None:
    file, held_out = write_texts(tmp_path, [ODD_SPACE]), tmp_path / "held.jsonl"
    held_out.write_text(file.read_text())
    (tmp_path / "link.jsonl").symlink_to(file)
    before = file.read_text()
    for out in (file, held_out, tmp_path / "link.jsonl"):
        for option in ("--repaired", "--report"):
            assert "files that were read" in dataprep_error(1, "audit", file, "--against", held_out, option, out)
    assert "ends in .jsonl or .parquet" in dataprep_error(1, "audit", file, "--repaired", tmp_path / "out.csv")
    assert "Cannot write" in dataprep_error(1, "audit", file, "--repaired", tmp_path / "none/out.jsonl")
    assert "Cannot write" in dataprep_error(1, "audit", file, "--report", tmp_path / "none/r.html")
    assert "Cannot write" in dataprep_error(1, "audit", file, "--report", tmp_path)
    assert file.read_text() == held_out.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"set.jsonl", "held.jsonl", "link.jsonl"}


def test_a_failed_write_leaves_the_existing_file(tmp_path: Path) -> None:
    records = [{"text": PAIR.format(n, "b"), "odd": odd} for n, odd in enumerate([1, {}])]
    file, out = write_records(tmp_path / "set.jsonl", records), tmp_path / "out.parquet"
    out.write_text("as it was")
    with pytest.raises(InputError, match="several types .* Write .jsonl"):
        write_repaired(audit_file(file), out)
    assert out.read_text() == "as it was"


def test_a_killed_process_leaves_nothing_beside_the_output(tmp_path: Path) -> None:
    file = write_texts(tmp_path, [ODD_SPACE])
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom dataprep.audit import audit_file\n"
        "from dataprep.audit.repair import _output_file\n"
        "with _output_file(Path(sys.argv[2]), audit_file(Path(sys.argv[1]))) as file:\n"
        "    file.write(bytes(1 << 20))\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "out.jsonl")], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["set.jsonl"]
