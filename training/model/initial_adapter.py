"""Start training from an existing adapter (--init-adapter)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.common.text import excerpt
from dataprep.contract import sha256_of
from training.checksums import CHECKSUMS_FILE, find_damage
from training.config import RunConfig
from training.errors import OptionError
from training.model.added_tokens import added_tokens
from training.model.files import read_json_object

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS = "adapter_model.safetensors"
TOKEN_ROWS = ".token_adapter."  # in the names of trained rows of added tokens


def adapter_folder(path: Path) -> Path:
    """The folder with the adapter's files: `path`, or its folder `adapter` if `path` is a run.

    Raises:
        OptionError: there is no adapter, or a damaged one.
    """
    folder = path / "adapter" if (path / "adapter").is_dir() else path
    for name in ("adapter_config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise OptionError(f"--init-adapter {path}: {folder} has no {name}; give the folder of a run or an adapter.")
    damage = find_damage(folder) if (folder / CHECKSUMS_FILE).exists() else None
    if damage is not None:
        raise OptionError(f"--init-adapter {path}: the adapter is damaged ({damage}); restore it.")
    return folder


def initial_adapter_digest(path: Path | None) -> dict[str, str]:
    """The entry of run.json that names the initial adapter's weights; empty without one."""
    return {} if path is None else {"init_adapter_sha256": sha256_of(adapter_folder(path) / WEIGHTS)}


def load_initial_adapter(adapted: PeftModel, config: RunConfig) -> None:
    """Load the weights of --init-adapter into new adapters.

    Raises:
        OptionError: the adapter has another rank, alpha, kind or other layers than the new adapters.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert config.init_adapter is not None
    folder = adapter_folder(config.init_adapter)
    settings: dict[str, Any] = read_json_object(folder / "adapter_config.json")
    expected = {"r": config.lora_r, "lora_alpha": config.lora_alpha}
    if {name: settings.get(name) for name in expected} != expected:
        raise OptionError(
            f"--init-adapter {config.init_adapter} has rank {settings.get('r')} and alpha {settings.get('lora_alpha')}: "
            f"give it as --lora-r and --lora-alpha (now {config.lora_r} and {config.lora_alpha})."
        )
    for name, flag, now in (("use_rslora", "--rslora", config.rslora), ("use_dora", "--dora", config.dora)):
        if bool(settings.get(name)) != now:
            raise OptionError(
                f"--init-adapter {config.init_adapter} was trained {'without' if now else 'with'} {flag}: "
                f"{'omit' if now else 'give'} it here too."
            )
    unsupported = [name for name in ("rank_pattern", "alpha_pattern") if settings.get(name)]
    if unsupported:
        raise OptionError(
            f"--init-adapter {config.init_adapter} uses {', '.join(unsupported)}, which is not supported."
        )
    try:
        weights = load_file(str(folder / WEIGHTS))
    except (OSError, SafetensorError) as fault:
        raise OptionError(f"--init-adapter: {folder / WEIGHTS} cannot be read ({fault}).") from None
    _check_token_rows(adapted, folder, settings, config)
    new: dict[str, Any] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if not settings.get("trainable_token_indices"):  # tokens are added now, and their rows begin as they are
        weights |= {name: weight for name, weight in new.items() if TOKEN_ROWS in name}
    shapes = {name: tuple(weight.shape) for name, weight in new.items()}
    if {name: tuple(weight.shape) for name, weight in weights.items()} != shapes:
        differing = sorted(weights.keys() ^ shapes.keys()) or ["shapes of the weights"]
        raise OptionError(
            f"--init-adapter {config.init_adapter} belongs to other layers or another model ({differing[0]}): "
            f"give its layers as --targets (now {config.targets}) and --modules-to-save, and its base model as --model."
        )
    set_peft_model_state_dict(adapted, weights)


def _check_token_rows(adapted: PeftModel, folder: Path, settings: dict[str, Any], config: RunConfig) -> None:
    """Check that an adapter with rows of added tokens has those of the run's tokens, in the same order.

    Raises:
        OptionError: it has those of other tokens.
    """
    theirs = settings.get("trainable_token_indices")
    ours = adapted.peft_config["default"].trainable_token_indices  # type: ignore[attr-defined]
    if theirs and (theirs != ours or not _same_tokens(folder / "tokenizer.json", ours, config)):
        raise OptionError(
            f"--init-adapter {config.init_adapter} holds rows of added tokens (ids {_ids(theirs)}), and this run trains "
            f"others (ids {_ids(ours) or 'none'}): give the same --add-tokens, in the same order, as the run that made it."
        )


def _same_tokens(path: Path, indices: dict[str, list[int]], config: RunConfig) -> bool:
    """Whether the tokenizer saved with an adapter, if there is one, has the ids of the run for the added tokens."""
    from tokenizers import Tokenizer

    if not path.is_file():
        return True
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as fault:  # tokenizers raises plain Exception
        raise OptionError(f"--init-adapter: {path} cannot be read ({excerpt(str(fault))}).") from None
    ids = [tokenizer.token_to_id(token) for token in added_tokens(config)]
    return all(ids == each for each in indices.values())


def _ids(indices: Any) -> str:
    """The ids of peft's setting `trainable_token_indices`, which has them for each layer."""
    each = indices.values() if isinstance(indices, dict) else [indices or []]
    return ", ".join(map(str, sorted({number for ids in each for number in ids})))
