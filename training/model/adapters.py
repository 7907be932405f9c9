"""New LoRA adapters on a base model: their variant, the layers that get them, and what is trained besides."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from dataprep.common.text import nearest
from training.config import RunConfig
from training.errors import ModelError, OptionError, first_line
from training.model.architecture import Architecture
from training.model.sizes import (
    is_pattern,
    names_without_adapter,
    path_within,
    target_names,
    targets_path,
    text_decoder,
)
from training.model.text_pass import linear_layers, unused_layers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def check_targets(config: RunConfig, architecture: Architecture) -> None:
    """Check --targets and --modules-to-save against the architecture, before any weight is loaded.

    Raises:
        OptionError: a name or pattern fits no layer, or one that cannot be trained so; names the nearest.
    """
    linears = [architecture.sizes.module_path(linear.path) for linear in architecture.sizes.linears]
    paths = [*linears, *filter(None, [architecture.embeddings])]
    unsupported = architecture.sizes.without_adapter
    available = {path.rpartition(".")[2] for path in paths} - unsupported
    names = target_names(config.targets) or []
    for target in names:
        matched = [path for path in paths if targets_path(target, path)]
        if architecture.output is not None and targets_path(target, architecture.output):
            raise OptionError(
                f"--targets {target}: the output layer cannot have an adapter, because the loss is fused with it: remove it, "
                "or train the whole layer with --modules-to-save."
            )
        if not matched:
            kind = "the pattern" if is_pattern(target) else "the layer"
            raise OptionError(f"--targets: the model lacks {kind} '{target}'. {nearest(target, available)}")
        if refused := sorted({path.rpartition(".")[2] for path in matched} & unsupported):
            raise OptionError(f"--targets: '{refused[0]}' cannot have adapters. {nearest(refused[0], available)}")
        if config.add_tokens and architecture.embeddings in matched:
            raise OptionError(f"--add-tokens trains rows of the embeddings: remove {target} from --targets.")
        if config.dora and architecture.embeddings in matched:
            raise OptionError(f"--dora does not adapt embeddings: remove {target} from --targets.")
    _check_saved_modules(config, architecture)


def _check_saved_modules(config: RunConfig, architecture: Architecture) -> None:
    possible = [_name(path) for path in (architecture.embeddings, architecture.output) if path is not None]
    for name in saved_modules(config):
        if name not in possible:
            raise OptionError(f"--modules-to-save names '{name}'. {nearest(name, possible)}")
        if architecture.tied and name != _name(architecture.embeddings):
            raise OptionError(
                f"--modules-to-save {name}: the output layer of this model is its embeddings: name {possible[0]}, which "
                "trains both."
            )


def saved_modules(config: RunConfig) -> list[str]:
    """The layers that --modules-to-save trains whole."""
    return [name.strip() for name in config.modules_to_save.split(",")] if config.modules_to_save else []


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def add_adapters(base: PreTrainedModel, config: RunConfig, added_ids: tuple[int, ...] = ()) -> PeftModel:
    """Put fresh LoRA adapters on `base`. B is zero, so that the outputs do not change yet; the caller sets the seed.

    In a multimodal model only the text decoder gets adapters.

    Args:
        added_ids: ids of --add-tokens, whose embeddings and rows of the output layer are trained.

    Raises:
        OptionError: `--targets` does not fit the model; see also `check_targets`.
    """
    from peft import LoraConfig, get_peft_model

    decoder = text_decoder(base)
    unused = unused_layers(base, decoder)
    targets: str | list[str] = "all-linear"
    without_adapter = names_without_adapter(decoder)
    if is_pattern(config.targets):
        targets = config.targets
    elif (names := target_names(config.targets)) is not None:
        targets = names
    elif without_adapter or unused:
        paths = linear_layers(base, decoder).keys() - unused
        targets = sorted(path for path in paths if _name(path) not in without_adapter)
    modules = saved_modules(config)
    tied = bool(modules) and bool(getattr(base.config, "tie_word_embeddings", False))
    if tied:  # peft knows tied embeddings by the names embed_tokens and lm_head only
        output = base.get_output_embeddings()  # type: ignore[no-untyped-call]
        modules = [*modules, _name(path_within(base, output))]
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
        target_modules=targets,
        exclude_modules=_excluded(base, decoder, unused),
        modules_to_save=[*modules] or None,
        ensure_weight_tying=tied,
        trainable_token_indices=_trained_tokens(base, added_ids, modules),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(base, lora)
    except ValueError as error:
        raise OptionError(f"--targets {config.targets} does not fit this model ({first_line(error)}).") from None
    if tied:
        saved: Any = adapted.peft_config["default"]
        saved.modules_to_save = modules  # from which peft removed the output layer
    return prepare_trained_layers(adapted)


def check_loadable(adapted: PeftModel, name: str) -> None:
    """Check that peft loads the adapter that it saves: it renames weights by transformers' rules for checkpoints.

    Raises:
        ModelError: it would not, so that a resumed run, and every use of the adapter, would go on without it.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict

    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    loaded: Any = set_peft_model_state_dict(adapted, dict(weights))
    if loaded.unexpected_keys:
        raise ModelError(
            f"peft cannot load an adapter for {name} again, because transformers renames its weights "
            f"({loaded.unexpected_keys[0]}): use another model, or another version of transformers."
        )


def _trained_tokens(base: Any, added_ids: tuple[int, ...], modules: list[str]) -> dict[str, list[int]] | None:
    """peft's setting for the rows of added tokens in the embeddings and the output layer, unless these are trained whole."""
    if not added_ids:
        return None
    both = (base.get_output_embeddings(), base.get_input_embeddings())
    layers = {id(layer.weight): layer for layer in both if layer is not None}.values()  # of tied layers the embeddings
    names = [_name(path) for path, module in base.named_modules() if any(module is layer for layer in layers)]
    return {name: list(added_ids) for name in names if name not in modules} or None


def prepare_trained_layers(adapted: PeftModel) -> PeftModel:
    """Fit layers that are trained whole or by rows, and DoRA's, into the model.

    A layer that is trained whole is float32, and the model may not be: its input and output are cast. An output layer with
    trained rows gets the attribute that the fused loss reads. Only what is trained is saved.

    Raises:
        OptionError: the output layer has a bias, which peft would ignore.
    """
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    from training.model.dora import use_factored_norms

    use_factored_norms(adapted)
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.register_forward_pre_hook(_cast_input)
            module.register_forward_hook(_cast_output)
    wrappers = [module for module in adapted.modules() if isinstance(module, TrainableTokensWrapper)]
    for wrapper in wrappers:
        if getattr(wrapper.original_module, "bias", None) is not None:
            raise OptionError(
                "--add-tokens: the output layer of this model has a bias, so single rows cannot be trained: train the whole "
                "layers with --modules-to-save."
            )
        wrapper.bias = None  # type: ignore[assignment]
    # peft would add the base model's whole embeddings if they have an adapter or were resized.
    adapted.save_pretrained = partial(adapted.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return adapted


def _cast_input(layer: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Cast floating-point inputs to the type of the layer's weight."""
    return tuple(part.to(layer.weight.dtype) if part.is_floating_point() else part for part in inputs)


def _cast_output(layer: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
    """Cast the output to the type of the layer of the base model."""
    return output.to(layer.original_module.weight.dtype)


def adapter_note(config: RunConfig, fused: int, adapted: torch.nn.Module) -> str | None:
    """What the log says about a variant of LoRA, and which layers peft computes although the kernels are fused.

    Args:
        fused: adapted layers with the fused training step.
    """
    variants = [
        f"rank-stabilised (scaled by alpha / sqrt(r) = {config.lora_alpha / math.sqrt(config.lora_r):.3g})"
        if config.rslora
        else "",
        "DoRA" if config.dora else "",
        f"LoRA+ (B learns {config.lora_plus:g} times as fast as A)" if config.lora_plus else "",
    ]
    named = ", ".join(filter(None, variants))
    layers = sum("lora_A" in module._modules for module in adapted.modules())
    computed = f"{fused} of {layers} adapted layers are computed by the fused step" if fused else ""
    if fused < layers and fused:
        computed += ", the others by peft's own"
    if not fused and config.dora:
        computed = "peft's own layers compute it, apart from the norms of the weights"
    if not named and (fused == layers or not fused):
        return None
    return f"Adapters: {'; '.join(filter(None, [named, computed]))}."


def _excluded(base: torch.nn.Module, decoder: torch.nn.Module, unused: set[str]) -> str | None:
    """A pattern for the linear layers that get no adapters; None if there are none.

    These are the layers outside the text decoder, such as those of a vision tower, and unused ones.
    """
    import torch

    inside = {id(module) for module in decoder.modules()}
    output = base.get_output_embeddings()  # type: ignore[operator]
    patterns = [re.escape(path) for path in sorted(unused)]
    if any(
        isinstance(module, torch.nn.Linear) and id(module) not in inside and module is not output
        for module in base.modules()
    ):
        patterns.append(rf"(?!{re.escape(path_within(base, decoder))}\.).*")
    return "|".join(patterns) or None
