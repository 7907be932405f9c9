"""What the commands show in a terminal: the funnel, a conversation, a fate, duplicates side by side."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from rich.table import Table
from rich.text import Text

from dataprep.common.conversation_funnel import conversation_funnel
from dataprep.common.text import excerpt, plural, visible

TRAINED = "green"
CONTEXT = "bright_black"  # rendered and not trained; also details
CONTROL = "bold black on yellow"
MAX_WORDS_FOR_FREQUENT_ANCHORS = 2_000


def funnel_lines(summary: Mapping[str, Any], width: int) -> Text:
    """Return the funnel of a build: what was read, the conversations, those kept, and what each rule did.

    Args:
        summary: `sources, funnel, rows, splits, repairs` of a manifest.
        width: of the terminal, in columns.
    """
    funnel = conversation_funnel(summary)
    conversations = plural(funnel.conversations, "conversation")
    splits = ", ".join(f"{count:,} in {name}" for name, count in funnel.splits.items())
    blocks = [(f"{conversations} → {funnel.kept:,} kept: {splits}", funnel.lost)]
    if funnel.heading != conversations:
        blocks.insert(0, (funnel.heading, tuple(entry for entry in funnel.before if entry.rule != "on_path")))
    if funnel.repaired:
        blocks.append((f"Repairs among the {funnel.kept:,} kept", funnel.repaired))
    entries = [entry for _, block in blocks for entry in block]
    count_width = max((len(f"{entry.count:,}") for entry in entries), default=0)
    rule_width = max((len(entry.rule) for entry in entries), default=0)
    indent = count_width + rule_width + 6
    shown = Text()
    for heading, block in blocks:
        shown.append(visible(f"{heading}\n"), "bold")
        for entry in block:
            head, *rest = textwrap.wrap(entry.meaning, max(width - indent, 20)) or [""]
            shown.append(f"  {entry.count:>{count_width},}  {visible(entry.rule).ljust(rule_width)}  ")
            shown.append("\n".join([head, *(" " * indent + line for line in rest), ""]), CONTEXT)
    shown.rstrip()
    return shown


def conversation(text: str, spans: Sequence[Mapping[str, int]], controls: Sequence[Mapping[str, int]]) -> Text:
    """Return a rendered conversation: trained parts green, context grey, the template's control tokens highlighted."""
    edges = sorted({0, len(text), *(edge for part in (*spans, *controls) for edge in (part["start"], part["end"]))})
    shown = Text()
    for start, end in zip(edges, edges[1:], strict=False):
        style = TRAINED if _inside(start, spans) else CONTEXT
        if _inside(start, controls):
            style = f"{CONTROL} underline" if _inside(start, spans) else CONTROL
        shown.append(visible(text[start:end]), style)
    return shown


def _inside(position: int, parts: Sequence[Mapping[str, int]]) -> bool:
    return any(part["start"] <= position < part["end"] for part in parts)


def plain_conversation(text: str, spans: Sequence[Mapping[str, int]]) -> str:
    """Return a rendered conversation without colour: trained parts stand between ⟦ and ⟧."""
    pieces, position = [], 0
    for span in spans:
        pieces += [visible(text[position : span["start"]]), "⟦", visible(text[span["start"] : span["end"]]), "⟧"]
        position = span["end"]
    return "".join([*pieces, visible(text[position:])])


def fate(record: Mapping[str, Any]) -> Text:
    """Return an entry of `store.fates.explain` as a few lines: where the record is from, what happened, and why."""
    shown = Text()
    origin = (
        str(record["source"] or "") if record["line"] is None else f"{record['source'] or '?'}, line {record['line']}"
    )
    tree = f", tree {record['tree_id']}" if record["tree_id"] else ""
    shown.append(visible(f"{record['kind']} {record['id'] or ''}"), "bold")
    shown.append(visible(f"  ({origin}{tree})\n"), CONTEXT)
    if record["passed"]:
        shown.append(f"  passed    {', '.join(record['passed'])}\n", CONTEXT)
    for repair in record["repairs"] or []:
        shown.append(visible(f"  repaired  {repair['rule']}: "))
        shown.append(visible(f"{repair['detail'] or ''}\n"), CONTEXT)
    kept = record["fate"] == "kept"
    shown.append(visible(f"  {record['fate']}".replace("_", " ")), TRAINED if kept else "yellow")
    if kept:
        shown.append(visible(f"  in {record['rule']}: it passed every stage\n"))
    else:
        detail = f": {record['detail']}" if record["detail"] else ""
        shown.append(visible(f"  at stage {record['stage']} by rule {record['rule']}{detail}\n"))
    if record["survivor"] and record["rule"] != "on_path":
        similarity = f" (similarity {record['similarity']:.3f})" if record["similarity"] is not None else ""
        shown.append(visible(f"  duplicate of {record['survivor']}{similarity}\n"))
    return shown


def record_line(record: Mapping[str, Any]) -> Text:
    """Return a record of a rule on one line: its id, where it is from, and the detail."""
    place = f"{record['source']}:{record['line']}" if record["source"] and record["line"] is not None else ""
    head = "  ".join(part for part in (record["id"] or "", place) if part)
    detail = excerpt(record["detail"] or "", 200)
    return Text.assemble((visible(head), "bold"), (visible(f"  {detail}" if detail else ""), CONTEXT))


def survivor_chain(chain: Sequence[Mapping[str, Any]]) -> Text:
    """Return the fates of a duplicate's survivor, of that one's survivor, and so on, one line each."""
    shown = Text()
    for record in chain:
        place = (
            f"in {record['rule']}"
            if record["fate"] == "kept"
            else f"at stage {record['stage']} by rule {record['rule']}"
        )
        survivor = f", duplicate of {record['survivor']}" if record["survivor"] else ""
        shown.append(visible(f"  {record['id']}: {record['fate'].replace('_', ' ')} {place}{survivor}\n"))
    return shown


def side_by_side(
    left: Sequence[Mapping[str, str]], right: Sequence[Mapping[str, str]], dropped: str, kept: str, plain: bool
) -> Table:
    """Return two conversations beside each other; the words that both have, in order, are green (`plain`: in ⟦⟧).

    Args:
        left: messages of the dropped conversation.
        right: messages of its survivor.
        dropped: id of the dropped conversation.
        kept: id of its survivor.
        plain: without colours.
    """
    # Each word with the white space after it; only the words are compared.
    pieces = [
        re.findall(r"\S+\s*", "\n\n".join(f"{m['role']}: {m['content']}" for m in side)) for side in (left, right)
    ]
    shown = (Text(), Text())
    words = [[piece.rstrip() for piece in side] for side in pieces]
    for is_shared, *ranges in _shared_ranges(words[0], words[1]):
        for text, side, (start, end) in zip(shown, pieces, ranges, strict=True):
            part = "".join(side[start:end])
            body, space = visible(part.rstrip()), visible(part[len(part.rstrip()) :])
            marked = f"⟦{body}⟧{space}" if plain and is_shared and body else body + space
            text.append(marked, TRAINED if is_shared else "bold yellow")
    table = Table(padding=(0, 1))
    table.add_column(f"dropped: {dropped}", ratio=1, overflow="fold")
    table.add_column(f"kept: {kept}", ratio=1, overflow="fold")
    table.add_row(*shown)
    return table


def _shared_ranges(
    left: Sequence[str], right: Sequence[str]
) -> Iterator[tuple[bool, tuple[int, int], tuple[int, int]]]:
    """Yield whether the words are equal, and their range in `left` and in `right`, for each part of two lists of words."""
    shorter = min(len(left), len(right))
    start = next((i for i in range(shorter) if left[i] != right[i]), shorter)
    rest = shorter - start
    tail = next((i for i in range(rest) if left[-1 - i] != right[-1 - i]), rest)
    a, b = left[start : len(left) - tail], right[start : len(right) - tail]
    yield True, (0, start), (0, start)
    # In long texts frequent words are no anchors, or the cost would grow with the square of the length.
    autojunk = max(len(a), len(b)) > MAX_WORDS_FOR_FREQUENT_ANCHORS
    for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=autojunk).get_opcodes():
        yield kind == "equal", (start + i, start + j), (start + k, start + m)
    yield True, (len(left) - tail, len(left)), (len(right) - tail, len(right))


def cluster_lines(cluster: Mapping[str, Any]) -> Text:
    """Return a cluster of near-duplicates: the survivor, why it was chosen, and the members with their similarity."""
    shown = Text()
    shown.append(visible(f"{cluster['survivor']}  {cluster['opening']}".replace("\n", " ").strip() + "\n"), "bold")
    shown.append(visible(f"  {cluster['why']}\n"), CONTEXT)
    for member in cluster["members"]:
        shown.append(visible(f"  {member['similarity']:.3f}  {member['id']}\n"))
    return shown
