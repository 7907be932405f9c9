"""The report in a browser: nothing leaves, nothing strange runs, search and filters work, and it can be read by all."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataprep.build import Outcome
from dataprep.contract import open_build
from dataprep.report import Shown, build_report, charts
from dataprep.shards import read_duplicates, read_fates
from tests.conftest import ROOT
from tests.test_build import make
from tests.test_cli import dataprep, refused

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
    rows += [chat("twice", "the same"), chat("twice", "the same")]
    source = folder / "<i>evil & co.jsonl"
    source.write_text("".join(rows))
    return make(folder / "store", source=(str(source),), split="test=0.2", near_dup="off")


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
    shown = Shown.of(opened.splits, seed=42)
    fates, pairs = read_fates(opened.path), read_duplicates(opened.path)
    told = build_report(opened.manifest.facts, shown, fates, pairs, quality, True)
    assert SECRET in told


def test_it_says_what_the_manifest_says(attacked: Outcome) -> None:
    text = written(attacked)
    assert attacked.version in text and "dataprep build --name n" in text
    for rule in attacked.facts["fates"]["rules"]:
        assert rule in text
    assert f"{attacked.facts['fates']['dropped']:,} were dropped" in text
    assert text.count("<svg") == 4 and text.count("The numbers") == 4
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text


def test_the_command_tells_where_it_is_and_writes_another(attacked: Outcome, tmp_path: Path) -> None:
    store = attacked.path.parent.parent if attacked.path else tmp_path
    done = dataprep("report", "n", "--store", store)
    assert Path(done.stdout.strip()) == (attacked.path or tmp_path) / "report.html"
    done = dataprep("report", "n", "--store", store, "--show-personal-data", "--out", tmp_path / "r.html", "--json")
    assert SECRET in Path(json.loads(done.stdout)["path"]).read_text()
    assert "--out FILE" in refused(1, "report", "n", "--store", store, "--show-personal-data")
    assert "There is no build 'm'" in refused(1, "report", "m", "--store", store)


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
    assert 0 < shown["lang"] <= 20 and 0 < shown["split"] < shown["all"] and 0 < shown["length"] < 5


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
    drawn = charts.bars([("e\x01n", 3), ("x" * 300, 1), ("<b>", 1)])
    assert "e\ufffdn" in drawn and "x" * 16 not in drawn and "&lt;b&gt;" in drawn
