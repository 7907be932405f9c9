"""Sentences about keys and roles of the sources that are not used, and their counts for the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from dataprep.common.errors import InputError
from dataprep.common.text import MAX_NAME, agree, excerpt, plural
from dataprep.sources.files import SourceFile
from dataprep.sources.rows import MAX_KEYS, FieldCounts

_TURN_KEY = "messages."
_MOST_ROLES = 6  # named in one sentence
_MOST_NAMES = 30  # keys named in one sentence
# Names under which data sets that are not known have the assistant: they make the better example.
_ASSISTANTS = frozenset({"model", "ai", "bing", "bard", "claude", "gemini", "llama", "agent", "answer", "response"})


def uncoercible_notes(file: SourceFile, counts: FieldCounts) -> list[str]:
    """Name the keys of a file whose values have the wrong type."""
    return [
        f"{file.name}: {plural(count, 'value')} of '{name}' of the wrong type, read as null."
        for name, count in sorted(counts.uncoercible.items())
    ]


def unused_notes(counts: FieldCounts, records: int, noun: str) -> list[str]:
    """Say which keys are not used: one sentence for all keys that occur equally often.

    Args:
        counts: how often each key has a value; a key of a turn begins with `messages.`.
        records: number of records, called `noun` (records, or the messages of trees).
    """
    by_count: dict[tuple[bool, int], list[str]] = {}
    for name, count in counts.unused.items():
        by_count.setdefault((name.startswith(_TURN_KEY), count), []).append(name)
    notes = []
    for (in_turn, count), names in sorted(by_count.items(), key=lambda item: (item[0][0], -item[0][1])):
        total = plural(counts.turns, "message") if in_turn else plural(records, noun.removesuffix("s"))
        listed = _listed(sorted(name.removeprefix(_TURN_KEY) for name in names))
        have, are = agree(count, "has", "have"), agree(len(names), "is", "are")
        notes.append(f"{count:,} of {total} {have} {listed}, which {are} not used.")
    if counts.unused_others:
        notes.append(
            f"{plural(counts.unused_others, 'value')} of further keys are not used: there are more than {MAX_KEYS:,} keys."
        )
    return notes


def refuse_unused(file: SourceFile, counts: FieldCounts, metadata: Collection[str]) -> None:
    """Refuse a file with keys that are not used and are not known to describe records of its format.

    Raises:
        InputError: names the keys and how often they have a value.
    """
    unknown = {name: count for name, count in counts.unused.items() if name not in metadata}
    if unknown:
        shown = [f"'{excerpt(name, MAX_NAME)}' ({count:,})" for name, count in sorted(unknown.items())[:_MOST_NAMES]]
        listed = ", ".join(shown) + (", …" if len(unknown) > _MOST_NAMES else "")
        raise InputError(
            f"{file.name} has keys that are not used: {listed}. Remove or rename them (--columns), or allow them with "
            "--unknown-fields note."
        )


def unknown_role_sentence(file: SourceFile, roles: Counter[str]) -> str:
    """Name the roles of a file that are not known, and how to map them."""
    names = sorted(name for name, _ in roles.most_common(_MOST_ROLES))
    more = " and others" if len(roles) > len(names) else ""
    subject = f"the role {_listed(names)} is" if len(names) == 1 else f"the roles {_listed(names)}{more} are"
    example = next((name for name in names if name.lower() in _ASSISTANTS), names[0])
    return f"{file.name}: {subject} not known; say what each means, such as --roles {excerpt(example, MAX_NAME)}=assistant."


def _listed(names: Sequence[str]) -> str:
    """Return names as `'a', 'b' and 'c'`; long ones are cut and only the first of many are given, because data decides them."""
    quoted = [f"'{excerpt(name, MAX_NAME)}'" for name in names[:_MOST_NAMES]]
    if len(names) > _MOST_NAMES:
        quoted.append(f"{len(names) - _MOST_NAMES:,} others")
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
