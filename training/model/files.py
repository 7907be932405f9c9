"""The files of a model: in a local folder, or on the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataprep.common.text import excerpt
from training.errors import ModelError

CONFIG = "config.json"


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a model's file.

    Raises:
        ModelError: the file cannot be read or does not hold an object.
    """
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is not a readable JSON object ({excerpt(str(error), 200)}).") from None


def locate(model: str, name: str, revision: str | None = None) -> Path | None:
    """Find a model's file, and download it if the model is on the Hub; None if the model has no such file.

    Without a connection to the Hub, a model whose config.json is in the cache is taken to have the cached files only.

    Raises:
        ModelError: the model cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(f"The model folder {model} does not exist: give a folder, a Hub name (owner/name), or tiny.")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except GatedRepoError:
        raise ModelError(
            f"{model} is gated: accept its licence on https://huggingface.co/{model} and set HF_TOKEN to your token."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"The Hub has no model {model}, or HF_TOKEN may not read it: check the name and the token."
        ) from None
    except LocalEntryNotFoundError as error:
        if isinstance(try_to_load_from_cache(model, CONFIG, revision=revision), str):
            return None
        raise ModelError(
            f"{model} cannot be downloaded and is not in the cache ({str(error).splitlines()[0]})"
        ) from None
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{model} cannot be read from the Hub ({str(error).splitlines()[0]}).") from None
