"""Hostile repositories of a Hub: cards, names of files, contents, redirects and responses."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from tests.hostile.builds import build_command
from tests.hostile.cases import TOKEN, Case, Outcome, Sandbox
from tests.hostile.files import FORMATS, RECORDS
from tests.hostile.mutation import HOSTILE_TEXTS, HOSTILE_VALUES, mutated
from tests.hostile.process import Attacker, failed
from tests.support.hub import Hub
from tests.support.hub_writing import Fault
from tests.support.reading import json_lines

_ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
# YAML metadata of cards. PATTERN and VALUE are replaced.
_CARDS = (
    _ALIASES + "configs: *a9",
    _ALIASES + "configs:\n- config_name: default\n  data_files: *a9",
    "a: &a [*a]\nconfigs: *a",
    "configs: [1, 2]",
    "configs: VALUE",
    "configs:\n- config_name: default\n  data_files:\n  - split: [a]\n    path: train.jsonl",
    "configs:\n- config_name: VALUE\n  data_files: VALUE",
    "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: PATTERN",
    "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [PATTERN, PATTERN, train.jsonl]",
    "configs:\n- config_name: default\n  data_files: PATTERN",
    "configs:\n- config_name: VALUE\n- config_name: VALUE",
    "configs: " + "[" * 3000 + "]" * 3000,
    "configs: " + "{a: " * 3000 + "1" + "}" * 3000,
    "configs:\n" + "- config_name: x\n" * 50_000,
    "x: !!python/object/apply:os.system ['touch OUTSIDE/owned']\nconfigs: VALUE",
    "configs: !!python/name:os.system",
    "x: " + "y" * 2_000_000,
    "default: &d {config_name: default, data_files: PATTERN}\nconfigs: [*d, *d, *d]",
)
_PATTERNS = (
    "train.jsonl", "**/*.jsonl", "*" * 60 + "x", "(a+)+$", "a*" * 200 + "b", "[" * 500, "[!" + "a" * 900 + "]*", "../../outside/file",
    "/etc/hostname", "{a,b}{a,b}{a,b}{a,b}{a,b}*.jsonl", "**/" * 300 + "x", "train-?????-of-*", "hf://datasets/o/other/x.jsonl",
    "https://localhost/x.jsonl", "~/x", "train.jsonl\\0x", "\\ud800",
)  # fmt: skip
_NAMES = (
    "train.jsonl", "data/train-00000-of-00001.parquet", "../../outside/train.jsonl", "/abs/train.jsonl", "a/../../../train.jsonl",
    "x" * 300 + ".jsonl", "d/" * 200 + "train.jsonl", "\x1b[2Jtrain.jsonl", "a\nb.jsonl", "train\u202e.jsonl", "-rf.jsonl", "~.jsonl",
    "a b%2f..%2ftrain.jsonl", "train.jsonl?x=1#y", "CON.jsonl", "a\\..\\b.jsonl", ".jsonl", "ready.trees.jsonl.gz", "x.py",
)  # fmt: skip
_LOCATIONS = (
    "STORAGE/datasets/o/sound/resolve/main/train.jsonl", "STORAGE/nothing", "file:///etc/hostname", "//localhost/x", "/nothing",
    "http://user:secret@127.0.0.1:1/x", "ftp://127.0.0.1/x", "http://[::1", "\u00e9", "http://127.0.0.1:1/x", "SELF",
)  # fmt: skip


def _card(sandbox: Sandbox, rng: random.Random) -> bytes:
    text = rng.choice(_CARDS).replace("OUTSIDE", str(sandbox.root / "outside"))
    while "VALUE" in text:
        text = text.replace("VALUE", json.dumps(rng.choice(HOSTILE_VALUES)), 1)
    while "PATTERN" in text:
        text = text.replace("PATTERN", json.dumps(rng.choice(_PATTERNS)), 1)
    card = f"---\n{text}\n---\n# Card\n".encode("utf-8", "surrogatepass")
    return mutated(card, rng) if rng.random() < 0.2 else card


def _faults(hub: Hub, repo: str, rng: random.Random) -> list[Fault]:
    """Redirects and responses that are not what was asked for."""
    location = (
        rng.choice(_LOCATIONS)
        .replace("STORAGE", hub.storage)
        .replace("SELF", f"/datasets/{repo}/resolve/main/train.jsonl")
    )
    redirect = Fault("/resolve/", rng.choice((301, 302, 307, 308)), headers={"Location": location})
    wrong = Fault(rng.choice(("GET /api/datasets/", "/resolve/")), rng.choice((200, 204, 206, 304, 400, 403, 416, 418)))
    lost = Fault(rng.choice(("GET /api/datasets/", "/resolve/")), 0, times=1)
    sizes = Fault(
        "/resolve/",
        200,
        headers={"X-Linked-Size": rng.choice(("-1", "9" * 30, "x")), "ETag": rng.choice(HOSTILE_TEXTS[:6]) or "x"},
    )
    return rng.choice(([redirect], [redirect], [wrong], [lost], [sizes]))


def outcomes(sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Outcome]:
    """Build from `count` hostile repositories of a Hub on loopback."""
    row = RECORDS["guanaco"]
    with Hub(TOKEN) as hub:
        sandbox.prepare()
        hub.commit("o/sound", {"train.jsonl": json_lines([row(n) for n in range(9)])})
        with Attacker(sandbox, **hub.environment(sandbox.root / "cache")) as attacker:
            for number in range(count):
                sandbox.prepare()
                repo = f"o/hostile-{number}"
                names = rng.sample(_NAMES, rng.randrange(1, 4))
                files = {
                    name: FORMATS["jsonl"][1](rng) if rng.random() < 0.3 else json_lines([row(n) for n in range(9)])
                    for name in names
                }
                card = {"README.md": _card(sandbox, rng)} if rng.random() < 0.6 else {}
                hub.commit(repo, {**files, **card})
                hub.faults[:] = _faults(hub, repo, rng) if rng.random() < 0.4 else []
                source = repo + rng.choice(("", "", "@main", ":train", ":test", "@nothing"))
                build = (*build_command(source, sandbox), "--near-dup", "off")
                yield _without_leaks(attacker.execute(Case.of(f"repository {number}", *build)), hub)


def _without_leaks(outcome: Outcome, hub: Hub) -> Outcome:
    leaks, hub.leaks = hub.leaks, []
    return failed(outcome, f"the token sent to another host with {leaks[0]}") if leaks else outcome
