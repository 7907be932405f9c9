"""The content of run.json, which describes a run, and its validation when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec

from dataprep.common.text import excerpt
from training.data.provenance import Provenance
from training.errors import RunError
from training.run_lookup import RUN_FILE


class ModelRecord(TypedDict):
    """The base model: its name as given, and the commit or digest of its files."""

    name: str
    revision: str
    init_adapter_sha256: NotRequired[str]  # with --init-adapter


class RuntimeRecord(TypedDict):
    """Device and arithmetic; see `training.model.runtime.Runtime`."""

    device: str
    precision: str
    attention: str
    liger: bool


class ResolvedRecord(TypedDict):
    """The batch configuration and the schedule; see `training.memory`."""

    micro_batch: int
    checkpoint_layers: int
    optimizer: str
    processes: int
    accumulate: int
    per_step: int
    wanted: int
    tokens_per_step: NotRequired[int]  # of `wanted` windows; earlier versions recorded the option only
    steps_an_epoch: int
    steps: int


class Metrics(TypedDict):
    """Losses in nats per token, the number of trained tokens, and the share of answers that ended with the end token."""

    first_loss: float | None
    last_loss: float | None
    held_out_before: float | None
    held_out_after: float | None
    trained_tokens: NotRequired[int]
    best_step: NotRequired[int]  # with --keep-best: the step of the adapter, whose loss is `held_out_after`
    stopped_by_itself: NotRequired[float]
    stop_prompts: NotRequired[int]


class TrackedRunRecord(TypedDict):
    """The run of a tracker (--report-to) that a resumed run continues."""

    tracker: str
    id: str


class LedgerRecord(TypedDict):
    """Rows of the build by use, and the token ledgers of the trained and held-out rows."""

    rows: dict[str, int]
    train: dict[str, Any]
    test: dict[str, Any] | None


class RunRecord(TypedDict):
    """run.json. A resumed run must agree with `provenance`, `model`, `options` and `place`."""

    provenance: Provenance
    model: ModelRecord
    options: dict[str, Any]
    operational: dict[str, Any]
    place: RuntimeRecord
    template: dict[str, Any]
    resolved: ResolvedRecord
    packing: dict[str, Any]
    memory: dict[str, Any]
    self_test: dict[str, Any]
    ledger: LedgerRecord
    versions: dict[str, str]
    notes: list[str]
    status: str
    metrics: NotRequired[Metrics]
    tracked_run: NotRequired[TrackedRunRecord]


def has_checksums(record: RunRecord) -> bool:
    """Whether the run was started by a version that writes checksums; earlier ones wrote the key `bond`."""
    return "bond" not in record


def read_record(path: Path) -> RunRecord:
    """Read and validate a run.json. The key `bond` of older files is read as `provenance`.

    Raises:
        RunError: the file is missing, unreadable, or not a run's record.
    """
    try:
        content = msgspec.json.decode(path.read_bytes())
        if isinstance(content, dict) and "bond" in content:
            content["provenance"] = content["bond"]
        msgspec.convert(content, RunRecord)
    except FileNotFoundError:
        raise RunError(f"{path.parent} holds no run: it has no {RUN_FILE}.") from None
    except (OSError, ValueError, RecursionError) as fault:
        raise RunError(
            f"{path} cannot be read ({excerpt(str(fault))}): restore it, or train into another --out."
        ) from None
    return content  # type: ignore[no-any-return]
