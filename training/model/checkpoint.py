"""The tensors of a model's safetensors files, by name, and how they belong to the layers of the loaded model.

transformers renames tensors when it loads some checkpoints (multimodal models, checkpoints without `model.`), so that a
layer of the loaded model and its tensor in the file can have different prefixes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from training.errors import ModelError
from training.model.architecture import Architecture
from training.model.files import locate, read_json_object
from training.model.sizes import Linear

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HEADER_LIMIT = 100 * 2**20  # bytes, which safetensors itself accepts


def weight_files(model: str, revision: str | None) -> list[Path]:
    """The safetensors files of a model, downloaded if it is on the Hub; none if it has other files only.

    Raises:
        ModelError: the index is damaged, or a file that it names is missing.
    """
    index = locate(model, INDEX, revision)
    if index is None:
        single = locate(model, SINGLE, revision)
        return [single] if single is not None else []
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError(f"{index} cannot be read (it has no weight_map): download the model again.")
    names = sorted(set(weight_map.values()))
    paths = [locate(model, name, revision) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise ModelError(f"{model} lacks the file {missing[0]} that its index names: download the model again.")
    return [path for path in paths if path is not None]


def tensor_shapes(model: str, revision: str | None) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a model's safetensors files, from the files' headers.

    Raises:
        ModelError: a file is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(model, revision):
        header = _header(path)
        header.pop("__metadata__", None)
        try:
            shapes |= {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        except (TypeError, KeyError, ValueError):
            raise ModelError(f"{path} cannot be read (invalid header): download the model again.") from None
    return shapes


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        first = file.read(8)
        size = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < size <= HEADER_LIMIT:
            raise ModelError(f"{path} cannot be read (not a safetensors file): download the model again.")
        try:
            header = json.loads(file.read(size))
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} cannot be read ({error}): download the model again.") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path} cannot be read (its header is not an object): download the model again.")
    return header


def tensor_names(architecture: Architecture, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """The tensor of each parameter of the model, by the parameter's path.

    transformers' own rules rename the tensors. A tensor that it splits or joins with others belongs to no parameter.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    model = architecture.skeleton
    parameters = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    others: list[Any] = [rule for rule in rules if not isinstance(rule, WeightRenaming)]
    names: dict[str, str] = {}
    for name in shapes:
        path, rule = rename_source_key(name, renamings, others, model.base_model_prefix, parameters)
        if rule is None and path in parameters:
            names[path] = name
    return names


def _has_tensor(
    linear: Linear, architecture: Architecture, names: dict[str, str], shapes: dict[str, tuple[int, ...]]
) -> bool:
    """Whether a layer of the decoder has a tensor of its shape; the shapes of weights in 4 bits say nothing."""
    name = names.get(f"{architecture.sizes.module_path(linear.path)}.weight")
    shape = (linear.inputs, linear.outputs) if linear.transposed else (linear.outputs, linear.inputs)
    return name is not None and (architecture.in_4_bits or shapes[name] == shape)


def merge_obstacle(architecture: Architecture, model: str, revision: str | None) -> str | None:
    """Why `training merge` cannot merge an adapter into this model; None if nothing is known to prevent it."""
    shapes = tensor_shapes(model, revision)
    if not shapes:
        return "it has no safetensors files"
    names = tensor_names(architecture, shapes)
    missing = [
        linear.path for linear in architecture.sizes.linears if not _has_tensor(linear, architecture, names, shapes)
    ]
    if missing:
        return f"its files have no tensor that is the weight of {missing[0]} alone"
    return None
