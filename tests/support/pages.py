"""Hostile texts for HTML reports, and a headless browser that reports what a page does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

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


def chat_line(*turns: str, lang: str = "en", **fields: Any) -> str:
    """A JSON line with `messages` of user and assistant in turn."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return json.dumps({"messages": messages, "lang": lang, **fields}) + "\n"


def open_in_browser(pages: Mapping[str, Path], screenshots: Path) -> dict[str, dict[str, Any]]:
    """What tests/node/look.mjs observed of each page; skips the test where Chromium or the node packages are missing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser or not shutil.which("node"):
        pytest.skip("Chromium or node is missing: apt-get install chromium nodejs")
    if not (NODE / "node_modules").is_dir():
        pytest.skip("playwright-core and axe-core are missing: npm ci --prefix tests/node")
    named = [f"{name}={page}" for name, page in pages.items()]
    command = ["node", str(NODE / "look.mjs"), browser, str(screenshots), *named]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    observed: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return observed


def assert_page_is_safe_and_accessible(observed: Mapping[str, Any]) -> None:
    """No request, no error, no script of the data, no horizontal scrolling, and nothing that axe objects to."""
    assert [url for url in observed["requests"] if not url.startswith("file:")] == []
    assert (observed["errors"], observed["dialogs"], observed["pwned"]) == ([], [], None)
    assert {view: pixels for view, pixels in observed["overflow"].items() if pixels} == {}
    assert {view: violations for view, violations in observed["axe"].items() if violations} == {}


def run_record(name: str, **entries: Any) -> Any:
    """The parts of a run.json that its page shows; `name` stands wherever a user could write a text."""
    return {
        "provenance": {"build": name, "version": "0" * 12, "template": name},
        "model": {"name": name, "revision": name},
        "place": {"device": "cpu", "precision": "fp32"},
        "options": {"lr": 0.005, "model": name, "keep_best": False, "patience": None},
        "resolved": {"steps": 40, "optimizer": "adamw"},
        "versions": {"torch": "2.13.0"},
        "notes": [name],
        "status": "done",
        "metrics": {"trained_tokens": 98_764, "stopped_by_itself": 0.5, "stop_prompts": 8},
    } | entries


def metric_lines(steps: int = 40) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with falling losses, and a held-out loss every ten steps."""
    lines: list[dict[str, Any]] = [{"step": 0, "eval_loss": 3.0}]
    for step in range(1, steps + 1):
        lines.append({"step": step, "loss": 2 + 1 / step, "learning_rate": 0.01 / step, "tokens_per_s": 1000.0 + step})
        if step % 10 == 0:
            lines.append({"step": step, "eval_loss": 2 + 1 / step})
    return lines


def sample_answer(text: str) -> Any:
    """An entry of answers.json whose texts are all `text`."""
    return {
        **dict.fromkeys(("question", "reference", "before", "after"), text),
        "before_stopped": False,
        "after_stopped": True,
    }
