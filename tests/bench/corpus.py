"""Make the seeded guanaco-format corpus with planted duplicates that the benchmarks run on.

The texts are random words from Zipf vocabularies with the structure of real text: paragraphs, lists, code, quotes,
accents, Cyrillic, Chinese and Japanese, emoji. A third of the conversations is plain ASCII. 2 % are exact duplicates of
another one (except for case, white space or Unicode form) and 4 % are near-duplicates (words replaced at random).

    python -m tests.bench.corpus PATH [CONVERSATIONS]
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

CHUNK = 10_000  # conversations made at a time; a duplicate is in the chunk of its original
EXACT, NEAR = 0.02, 0.04
SIMILARITIES = (0.95, 0.9, 0.85, 0.82, 0.78, 0.75, 0.7, 0.6, 0.5)  # targets; the index records the similarity reached
WORDS_A_MESSAGE = 42
TURNS = (0.3, 0.25, 0.2, 0.1, 0.1, 0.05)  # share of conversations with 1 … 6 pairs

Ids = npt.NDArray[np.int64]

SYLLABLES = {
    "ascii": "ta re in son the al de ver com pri ma ti on er st u ly qu o be sh ent lo k a",
    "accents": "ta re in son the al de ver com pri ma ti on er st u ly qu o be sh ent lo k a é ção ö ü ł ñ über",
    "cyrillic": "при вет ст ра но ко то ль на ни ро ве ли да за по ми ть ся об ы ю",
    "cjk": "的 一 是 不 了 人 我 在 有 他 这 中 大 来 上 国 个 到 说 们 の は を に が と て し で も ア イ ン",
}
SHARES = {"ascii": 1 / 3, "accents": 0.3, "cyrillic": 0.12, "cjk": 0.08, "spiced": 1 / 6}
ENDS = [" "] * 70 + [", "] * 10 + [". "] * 12 + [".\n"] * 3 + ["\n\n"] * 2 + ["\n- ", "\n1. ", "? "]
CJK_ENDS = [""] * 80 + ["，"] * 10 + ["。"] * 7 + ["\n\n", "！", "\n- "]
PIECES = [
    "```python\nfor i in range(10):\n    print(i)\n```\n",
    "\n### Step 1\n",
    "**",
    "`x = 1`",
    "https://example.org/a?b=1 ",
]
SPICE = ["😀 ", "👍🏽 ", "“quoted” ", "’s ", " – ", "… ", "é ", "naïve ", "5 €", "☕", "→ "]


def make_guanaco_corpus(path: Path, conversations: int = 200_000, seed: int = 7) -> Path:
    """Write the corpus (1.5 kB a conversation: 300 MB for 200,000) and, beside it, `<path>.planted.parquet`.

    The file has one `{"text": "### Human: …### Assistant: …"}` a line. The index of planted pairs has columns `line` and `of` (lines
    of the file, from 1), `kind` (exact or near) and `similarity` (Jaccard on the sets of 5-grams of `\\w+` words, in
    lower case, of all contents joined by a space; for `exact` 1). The same arguments give the same bytes.
    """
    rng = np.random.default_rng(seed)
    planted, written = [], 0
    with path.open("wb") as out:
        while written < conversations:
            texts, pairs = _chunk(rng, min(CHUNK, conversations - written))
            out.write(pl.DataFrame({"text": texts}).write_ndjson().encode())
            planted.append(pairs.with_columns(pl.col("line", "of") + written))
            written += len(texts)
    pl.concat(planted).write_parquet(f"{path}.planted.parquet")
    return path


def cached_corpus(conversations: int = 200_000, seed: int = 7) -> Path:
    """Return the corpus in the user's cache (`$XDG_CACHE_HOME/dataprep-bench`), made if it is missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dataprep-bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"guanaco-v2-{conversations}-{seed}.jsonl"
    if not path.exists():
        make_guanaco_corpus(folder / f"{path.name}.{os.getpid()}", conversations, seed)
        os.replace(folder / f"{path.name}.{os.getpid()}.planted.parquet", f"{path}.planted.parquet")
        os.replace(folder / f"{path.name}.{os.getpid()}", path)
    return path


def _chunk(rng: np.random.Generator, count: int) -> tuple[list[str], pl.DataFrame]:
    """Return `count` texts in random order, and the planted pairs among them: line (from 1), of, kind, similarity."""
    exact, near = round(count * EXACT), round(count * NEAR)
    originals = _originals(rng, count - exact - near)
    chosen = rng.choice(len(originals), exact + near, replace=exact + near > len(originals))
    # Duplicates are edited one by one: they are few (6 %).
    conversations, pairs = list(originals), []
    for i, original in enumerate(chosen.tolist()):
        copy = _in_another_form(originals[original], i) if i < exact else _edited(rng, originals[original])
        similarity = 1.0 if i < exact else _similarity(originals[original], copy)
        pairs.append((len(conversations), original, "exact" if i < exact else "near", similarity))
        conversations.append(copy)
    places = rng.permutation(count)
    texts = [""] * count
    for place, turns in zip(places.tolist(), conversations, strict=True):
        texts[place] = "".join(("### Human: ", "### Assistant: ")[i % 2] + text for i, text in enumerate(turns))
    index = pl.DataFrame(pairs, schema=["line", "of", "kind", "similarity"], orient="row")
    return texts, index.with_columns(pl.Series(name, places[index[name].to_numpy()] + 1) for name in ("line", "of"))


def _originals(rng: np.random.Generator, count: int) -> list[list[str]]:
    """Return the messages of `count` conversations, made column by column."""
    kinds = rng.choice(len(SHARES), count, p=list(SHARES.values()))
    messages = 2 * rng.choice(np.arange(1, 7), count, p=TURNS)
    lengths = 1 + rng.gamma(0.9, WORDS_A_MESSAGE / 0.9, int(messages.sum())).astype(np.int64)
    of_word = np.repeat(np.repeat(kinds, messages), lengths)
    tokens = np.empty(len(of_word), object)
    for kind, name in enumerate(SHARES):
        at = np.flatnonzero(of_word == kind)
        tokens[at] = _tokens(rng, name, len(at))
    ends = np.cumsum(lengths).tolist()
    words = tokens.tolist()
    contents = ["".join(words[a:b]).strip() or "ok" for a, b in pairwise([0, *ends])]
    borders = np.cumsum(messages).tolist()
    return [contents[a:b] for a, b in pairwise([0, *borders])]


def _tokens(rng: np.random.Generator, kind: str, count: int) -> npt.NDArray[np.object_]:
    """Return `count` words of one kind, each with the separator that follows it."""
    spiced = kind == "spiced"
    vocabulary = _vocabulary("ascii" if spiced else kind)
    share = np.cumsum(1 / (np.arange(len(vocabulary)) + 2.7))  # Zipf's law with Mandelbrot's shift
    ranks = np.searchsorted(share, rng.random(count) * share[-1])
    ends = np.array(CJK_ENDS if kind == "cjk" else ENDS, object)
    tokens: npt.NDArray[np.object_] = vocabulary[ranks] + ends[rng.integers(0, len(ends), count)]
    for pieces, every in ((PIECES, 300), (SPICE, 25)):
        if pieces is PIECES or spiced:
            at = np.flatnonzero(rng.integers(0, every, count) == 0)
            tokens[at] = np.array(pieces, object)[rng.integers(0, len(pieces), len(at))]
    return tokens


def _vocabulary(kind: str, size: int = 30_000) -> npt.NDArray[np.object_]:
    """Return at most `size` distinct words, the shorter ones first; a tenth begins with a capital letter."""
    rng = np.random.default_rng(size)
    syllables = np.array(SYLLABLES[kind].split(), object)
    lengths = np.sort(rng.choice([1, 2] if kind == "cjk" else [1, 2, 3, 4], 2 * size))
    words = np.full(2 * size, "", object)
    for i in range(4):
        words[lengths > i] += syllables[rng.integers(0, len(syllables), int((lengths > i).sum()))]
    words = np.array(list(dict.fromkeys(words))[:size], object)
    capital = np.flatnonzero(rng.random(len(words)) < 0.1)
    words[capital] = [word.capitalize() for word in words[capital]]
    return words


def _in_another_form(messages: Sequence[str], i: int) -> list[str]:
    """Return the same conversation in another case, with other white space, or in another Unicode form."""
    forms = (str, str.upper, lambda text: text.replace(" ", "  "), lambda text: unicodedata.normalize("NFD", text))
    return [forms[i % 4](text) for text in messages]


def _edited(rng: np.random.Generator, messages: Sequence[str]) -> list[str]:
    """Replace words at random with probability r: (1 - r)^5 = 2J / (1 + J) of the 5-grams are shared."""
    target = SIMILARITIES[rng.integers(len(SIMILARITIES))]
    rate = 1 - (2 * target / (1 + target)) ** 0.2
    edited = []
    for text in messages:
        words = text.split(" ")
        hit = np.flatnonzero(rng.random(len(words)) < rate).tolist()
        for at in hit:
            words[at] = f"edit{rng.integers(10**6)}"
        edited.append(" ".join(words))
    return edited


def _similarity(messages_a: Sequence[str], messages_b: Sequence[str]) -> float:
    """Return the Jaccard similarity on 5-grams of words; each Chinese or Japanese character is a word."""
    sets = []
    for messages in (messages_a, messages_b):
        words = re.findall(
            r"[぀-ヿ㐀-鿿]|\w+?(?=[぀-ヿ㐀-鿿]|\b)", unicodedata.normalize("NFKC", " ".join(messages)).lower()
        )
        sets.append({tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    make_guanaco_corpus(target, int(sys.argv[2]) if len(sys.argv) > 2 else 200_000)
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB")
