"""The report in a browser: nothing leaves, nothing strange runs, search and filters work, and it can be read by all."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataprep.audit import audit_file
from dataprep.build import Outcome
from dataprep.contract import open_build
from dataprep.report import Shown, audit_report, build_report, charts
from dataprep.store.shards import read_duplicates, read_fates
from tests.support.builds import make_build
from tests.support.commands import dataprep, dataprep_error
from tests.support.paths import ROOT

RECIPE = [f"step{n}" for n in range(100)]
NODE = ROOT / "tests/node"
SECRET = "jane.doe@example.org"
ATTACKS = [
    "<script>window.pwned = 1; alert(1)</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "</div></textarea></style><style>* { display: none }</style><svg onload=alert(3)>",
    '" autofocus onfocus="window.pwned = 4',
    "{{ 7 * 7 }} {% raise %} &amp;lt; <!-- ]]>",
    "left \u202eright\u202c \x1b[31mred\x07 \x00nul"[:-4],
    "w" * 30_000,
]


def chat(*turns: str, lang: str = "en", **more: Any) -> str:
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return json.dumps({"messages": messages, "lang": lang, **more}) + "\n"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A build of hostile conversations among sound ones."""
    folder = tmp_path_factory.mktemp("attacked")
    rows = [chat(attack, f"{attack} answered") for attack in ATTACKS]
    rows += [chat(f"Frage {n} nach dem Wetter", f"Antwort {n}: es regnet.", lang="de") for n in range(20)]
    rows += [chat(f"question {n} of <b>many</b>", f"answer {n} to it") for n in range(30)]
    rows += [
        chat("what is a zebrafish?", f"A fish, says {SECRET}."),
        chat("z" * 5_000_000, "long"),
        chat("<i>no answer</i>"),
    ]
    rows += [chat("twice", "the same", id=id_) for id_ in ("t1", "t2", f"{SECRET}")]
    rows += [chat("How do I cook this?", " ".join(RECIPE), id="c0", lang="en")]
    rows += [chat("How do I cook this?", " ".join([*RECIPE[:-n], "changed"]), id=f"c{n}") for n in (1, 2)]
    source = folder / "<i>evil & co.jsonl"
    source.write_text("".join(rows))
    return make_build(folder / "store", source=(str(source),), split="test=0.2", near_dup="0.8")


def written(outcome: Outcome) -> str:
    assert outcome.path
    return (outcome.path / "report.html").read_text()


def test_texts_stay_texts(attacked: Outcome) -> None:
    text = written(attacked)
    assert "<script>window" not in text and "<img" not in text and "<i>evil" not in text and "<i>no answer" not in text
    assert "&lt;script&gt;" in text and "&lt;U+202E&gt;" in text
    assert "\u202e" not in text and "\x1b" not in text
    assert text.count("<script>") == 1
    assert len(text) < 1_000_000


def test_personal_data_is_masked_unless_it_is_asked_for(attacked: Outcome) -> None:
    assert SECRET not in written(attacked) and "[e-mail hidden]" in written(attacked)
    opened = open_build(attacked.path or "")
    quality = json.loads((opened.path / "quality.json").read_text())
    fates, pairs = read_fates(opened.path), read_duplicates(opened.path)
    shown = Shown.of(opened.splits, 42, fates)
    told = build_report(opened.manifest.facts, shown, fates, pairs, quality, True)
    assert SECRET in told


def test_it_says_what_the_manifest_says(attacked: Outcome) -> None:
    text = written(attacked)
    assert attacked.version in text and "dataprep build --name n" in text
    for rule in attacked.facts["fates"]["rules"]:
        assert rule in text
    assert f"{attacked.facts['fates']['dropped']:,} were dropped" in text
    assert text.count("<svg") == 4 and text.count("The numbers") == 3  # the others' numbers stand beside them
    assert 'dir="auto">de</th>' in text and "</span>20</td>" in text and '<td class="n">100.0 %</td>' in text
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text


def test_the_command_tells_where_it_is_and_writes_another(attacked: Outcome, tmp_path: Path) -> None:
    store = attacked.path.parent.parent if attacked.path else tmp_path
    done = dataprep("report", "n", "--store", store)
    assert Path(done.stdout.strip()) == (attacked.path or tmp_path) / "report.html"
    done = dataprep("report", "n", "--store", store, "--show-personal-data", "--out", tmp_path / "r.html", "--json")
    assert SECRET in Path(json.loads(done.stdout)["path"]).read_text()
    assert "--out FILE" in dataprep_error(1, "report", "n", "--store", store, "--show-personal-data")
    assert "There is no build 'm'" in dataprep_error(1, "report", "m", "--store", store)


@pytest.fixture(scope="module")
def seen(attacked: Outcome, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser saw of it; its screenshots are beside it."""
    return look(attacked.path / "report.html" if attacked.path else Path(), tmp_path_factory.mktemp("screens"))


def look(page: Path, folder: Path) -> dict[str, Any]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser or not shutil.which("node"):
        pytest.skip("there is no Chromium or no node: apt-get install chromium nodejs")
    if not (NODE / "node_modules").is_dir():
        pytest.skip("playwright-core and axe-core are not there: npm ci --prefix tests/node")
    command = ["node", str(NODE / "look.mjs"), str(page), browser, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert {path.name for path in folder.iterdir()} >= {"light-wide.png", "dark-phone.png"}
    return told


def test_no_request_leaves_and_nothing_runs(seen: dict[str, Any]) -> None:
    assert [url for url in seen["requests"] if not url.startswith("file:")] == []
    assert (seen["errors"], seen["dialogs"], seen["pwned"]) == ([], [], None)


def test_search_and_filters_work(seen: dict[str, Any]) -> None:
    shown = seen["shown"]
    assert shown["search"] == 1 and shown["status"].startswith("1 of ")
    assert shown["all"] == shown["again"] > 40
    for name in ("lang", "split", "length"):
        assert sum(shown[name].values()) == shown["all"] and len(shown[name]) > 1
    assert shown["lang"]["de"] == 20 and 0 < shown["length"]["long"] < 5
    assert len(set(seen["heights"])) == 1


def test_nothing_is_wider_than_a_phone(seen: dict[str, Any]) -> None:
    assert set(seen["overflow"].values()) == {0}


def test_axe_finds_no_serious_fault(seen: dict[str, Any]) -> None:
    assert {name: found for name, found in seen["axe"].items() if found} == {}


@pytest.mark.parametrize(
    ("top", "ticks"),
    [(0, [0, 1]), (1, [0, 1]), (3, [0, 1, 2, 3]), (90, [0, 50, 100]), (1539, [0, 500, 1000, 1500, 2000])],
)
def test_charts_count_in_whole_numbers(top: int, ticks: list[int]) -> None:
    assert charts._ticks(top) == ticks


def test_charts_hold_any_name() -> None:
    drawn = charts.columns([("e\x01n", 3), ("x" * 300, 1), ("<b>", 1)])
    assert "e\ufffdn" in drawn and "x" * 16 not in drawn and "&lt;b&gt;" in drawn


def test_a_curve_shows_its_line_and_what_was_measured() -> None:
    drawn = charts.curve([(0.0, 0.0), (0.5, 0.4), (1.0, 1.0)], [(0.85, 0.9), (0.95, 1.0)])
    assert drawn and drawn.count("<path") >= 1 and drawn.count("<circle") == 2
    assert charts.curve([], []) is None


def test_groups_of_duplicates_show_their_texts_once(attacked: Outcome) -> None:
    text = written(attacked)
    near = text[text.index("Nearly the same") : text.index("Word for word the same")]
    assert near.count("stays: <code>") == 1 and near.count("went: <code>") == 2
    assert "<mark>step99</mark>" in near and "<mark>⌫</mark>" in near
    assert near.count("step50") == 1  # what both have is left out of the members
    exact = text[text.index("Word for word the same") : text.index('id="gate"')]
    assert "assistant: the same" in exact and exact.count("2 gave way to it") == 1 and "<code>t2</code>" in exact


def hostile(folder: Path, kind: str) -> Path:
    """A file of the largest texts that a report may have to show of some rows."""
    rows = {
        "quotes": [chat(f"q{n} " + '"' * 100, f"a{n} " + "<\"&'>" * 3_000) for n in range(300)],
        "controls": [chat(f"q{n} hello there", f"a{n} " + "\u202e\u200f\x07" * 3_000) for n in range(300)],
        "ids": [chat(f"question {n * 7919}", f"answer {n * 104729}", id="&" * 100_000 + str(n)) for n in range(60)],
        "languages": [chat(f"question {n * 7919}", f"answer {n}", lang="x" * 200 + str(n)) for n in range(3_000)],
        "turns": [chat(*(f"<{n}&{at}>" for at in range(4_000))) for n in range(200)],
    }
    file = folder / f"{kind}.jsonl"
    file.write_text("".join(rows[kind]))
    return file


@pytest.mark.parametrize("kind", ["quotes", "controls", "ids", "languages", "turns"])
def test_it_stays_below_five_megabytes(tmp_path: Path, kind: str) -> None:
    file = hostile(tmp_path, kind)
    outcome = make_build(tmp_path / "store", source=(str(file),), near_dup="off", control_tokens="keep")
    assert len(written(outcome).encode()) < 5_000_000
    assert len(audit_file(file, format="messages").page().encode()) < 5_000_000


def test_the_audit_of_many_long_rows_stays_below_five_megabytes(tmp_path: Path) -> None:
    summary = {"file": "f", "rows": 9_999, "faulty": 9_999, "kinds": {"unfinished": 9_999}, "every_row": ["<" * 99_999]}
    fault = {"kind": "unfinished", "detail": "&" * 9_999, "sure": "likely"}
    turn = {"role": "user", "content": "\u202e" * 9_999}
    rows = [{"name": f"row {n}", "faults": [fault] * 9, "messages": [turn] * 99} for n in range(9_999)]
    page = audit_report(summary, rows)
    assert 3_000_000 < len(page.encode()) < 5_000_000
    assert "<strong>Row 599</strong>" in page and "<strong>Row 600</strong>" not in page


def test_a_rare_kind_of_fault_is_shown_beside_a_frequent_one() -> None:
    kinds = ["unfinished"] * 2_000 + ["leak"]
    summary = {"file": "f", "rows": 2_001, "faulty": 2_001, "kinds": {"unfinished": 2_000, "leak": 1}, "every_row": []}
    rows = [
        {"name": f"row {n}", "faults": [{"kind": kind, "detail": "d", "sure": "certain"}], "messages": []}
        for n, kind in enumerate(kinds)
    ]
    assert "<strong>Row 2000</strong>" in audit_report(summary, rows)


def test_secrets_are_hidden_wherever_a_text_is_cut_and_in_ids(tmp_path: Path) -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "SECRETBODY" * 900 + "\n-----END PRIVATE KEY-----"
    rows = [chat("x" * 980 + f" write {SECRET}", "ok"), chat("and a key?", "a" * 13_000 + key)]
    rows += [chat(f"how long {room}?", "a" * room + f" {SECRET}") for room in range(13_900, 14_100, 7)]
    rows += [chat("twice", "the same", id="t1"), chat("twice", "the same", id=SECRET), chat(f"no answer, {SECRET}")]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(rows))
    text = written(make_build(tmp_path / "store", source=(str(file),), near_dup="off"))
    assert "jane" not in text and "SECRETBODY" not in text
    page = audit_file(file, format="messages").page()
    assert "jane" not in page and "SECRETBODY" not in page


def test_a_build_of_the_sample_says_that_it_is_synthetic(tmp_path: Path) -> None:
    outcome = make_build(tmp_path, limit=100)
    assert "are <strong>synthetic</strong>" in written(outcome)
    card = ((outcome.path or tmp_path) / "README.md").read_text()
    assert "the bundled sample, which is synthetic" in card and "The texts are synthetic" in card


def test_many_sources_are_counted_not_listed(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(40):
        (folder / f"part-{n:02}.jsonl").write_text(chat(f"question {n}", f"answer {n}"))
    outcome = make_build(tmp_path / "store", source=(str(folder),), near_dup="off")
    for text in (written(outcome), ((outcome.path or tmp_path) / "README.md").read_text()):
        assert "part-04.jsonl and 35 more" in text and "part-05.jsonl and" not in text


def test_the_gate_tells_what_fails_what_holds_and_what_was_not_judged(attacked: Outcome) -> None:
    opened = open_build(attacked.path or "")
    fates = read_fates(opened.path)
    check = {"severity": "warning", "arguments": {}, "rows": 9, "abstaining": 0, "failing": 0, "ids": []}
    quality = {"gate": "passed", "suite": "s.toml", "rows": 9, "checks": [
        check | {"name": "one", "says": "This fails.", "passed": False, "failing": 70, "ids": [f"i{n}" for n in range(70)]},
        check | {"name": "two", "says": "This holds.", "passed": True},
        check | {"name": "three", "says": "This abstains.", "passed": True, "abstaining": 9},
    ]}  # fmt: skip
    text = build_report(opened.manifest.facts, Shown.of(opened.splits, 42, fates), fates, None, quality)
    assert "1 hold, 1 does not, 1 found nothing to judge" in text
    assert text.index("This fails.") < text.index("This abstains.") < text.index("This holds.")
    assert ">not judged</span><div>This abstains." in text and ">warning</span>" in text
    assert "<code>i49</code> and 20 more" in text


@pytest.fixture(scope="module")
def seen_audit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser saw of the report of an audit of hostile rows in a folder with a long name."""
    folder = tmp_path_factory.mktemp("audit") / ("long-" * 40) / ("deep" * 50)
    folder.mkdir(parents=True)
    file = folder / "<i>evil & co.jsonl"
    texts = [f"<s>[INST] {attack} [/INST] {attack} answered </s>" for attack in ATTACKS]
    texts += [f"<s><s>[INST] ask {attack} [/INST] {attack} answered </s>" for attack in ATTACKS]
    texts += [
        "<s>[INST] what is a zebrafish? [/INST]  </s>",
        "<s>[INST] a [/INST] b </s>",
        "<s>[INST] a [/INST] b </s>",
    ]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    page = folder / "r.html"
    dataprep("audit", file, "--report", page)
    return look(page, tmp_path_factory.mktemp("audit-screens"))


def test_an_audits_report_is_as_sound(seen_audit: dict[str, Any]) -> None:
    assert [url for url in seen_audit["requests"] if not url.startswith("file:")] == []
    assert (seen_audit["errors"], seen_audit["dialogs"], seen_audit["pwned"]) == ([], [], None)
    assert set(seen_audit["overflow"].values()) == {0}
    assert {name: found for name, found in seen_audit["axe"].items() if found} == {}
    shown = seen_audit["shown"]
    assert shown["search"] == 1 and shown["all"] == shown["again"] > 8
    assert shown["kind"]["duplicate"] == 1 and shown["kind"]["doubled_control_token"] == len(ATTACKS)
    assert shown["sure"]["certain"] > 0
