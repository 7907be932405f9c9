"""The versions of the libraries that compute a run, and the notes on a resumed run whose versions changed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from training.run_record import RunRecord

LIBRARIES = (
    "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "tokenizers", "pyarrow", "liger-kernel",
)  # fmt: skip
RESUMED_WITH = "The run was resumed with"


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that determine a run's results."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def version_notes(recorded: RunRecord, now: dict[str, str]) -> list[str]:
    """Notes on changed library versions: those that run.json has already, and one for the present versions."""
    before = recorded["versions"]
    changed = [
        f"{name} {now.get(name)} (before: {before.get(name)})"
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
    ]
    notes = [note for note in recorded["notes"] if note.startswith(RESUMED_WITH)]
    note = f"{RESUMED_WITH} {', '.join(changed)}: its losses may differ from an uninterrupted run's in the last digits."
    return [*notes, note] if changed else notes
