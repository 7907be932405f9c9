"""The folder of a trained adapter: weights, tokenizer, chat template and card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.after.card import model_card
from training.after.stopping import (
    check_stopping,
    make_tokenizer_portable,
    special_token_ids,
    write_generation_config,
)
from training.checksums import write_checksums
from training.run_folder import PARTIAL, commit_folder
from training.run_record import RunRecord

if TYPE_CHECKING:
    from training.run import RunContext


def write_adapter(context: RunContext, model: Any, tokenizer: Any, record: RunRecord) -> None:
    """Write a folder that stock peft and transformers open; it appears complete or not at all."""
    final = context.folder.adapter
    partial = final.with_name(final.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    for settings in model.peft_config.values():
        settings.revision = _hub_revision(context, record)
    model.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    make_tokenizer_portable(partial)
    ids = special_token_ids(context.base_model, context.config.revision, context.tokenizer, partial)
    write_generation_config(partial, context.base_model, context.config.revision, ids)
    check_stopping(partial, context.build.manifest.template["end_token"])
    (partial / "README.md").write_text(model_card(record), "utf-8")
    write_checksums(partial)
    commit_folder(partial, final)


def _hub_revision(context: RunContext, record: RunRecord) -> str | None:
    """The commit of a base model on the Hub, so that stock peft loads the same weights; None for a folder."""
    return None if Path(context.base_model).is_dir() else record["model"]["revision"]
