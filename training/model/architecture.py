"""The architecture of a model, from its config.json alone: its sizes, its limits, and whether it can be packed.

The model is built on PyTorch's meta device, which has shapes and no values. That counts the weights of every architecture
exactly and takes less than a second for a model of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

from training.errors import ModelError, first_line
from training.model.sizes import Linear, ModelSizes, is_expert, names_without_adapter, path_within, text_decoder

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

MOST_LAYERS = 10_000  # a config.json with more is damaged
# Modules and buffers with one entry per position; a longer row is an index error.
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings", "embed_positions_buffer")
# Kinds of layers that keep no state from one token to the next.
ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
# Parts of the names of layers that keep one.
RECURRENT_WORDS = ("linear", "conv", "mamba", "recurrent", "hybrid")
# Rotary embeddings that depend on the longest row of the batch, so that a long row changes shorter ones.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True)
class Architecture:
    """What a model's class and config.json say about training it."""

    model_type: str
    auto_class: str  # the transformers class that loads it with an output layer
    decoder: str  # path of the text decoder within the model
    sizes: ModelSizes
    stock_attention: str  # name of transformers' own attention
    packing_obstacle: str | None  # why conversations cannot be packed, None if nothing is known to prevent it
    positions: int | None  # most tokens in a row that the model was made for; None: unlimited
    has_position_table: bool  # longer rows are an error rather than untrained positions
    tied: bool  # the output layer is the input embeddings
    embeddings: str  # path of the input embeddings within the model
    output: str | None  # path of the output layer within the model
    rope_limit: int | None  # tokens; a longer row changes the rotary embedding of shorter rows in the same pass
    in_4_bits: bool  # whether the checkpoint itself holds weights in 4 bits
    skeleton: Any = field(repr=False)  # the model on the meta device

    def quantised_layers(self) -> list[str]:
        """Paths of the linear layers that NF4 holds and text passes through: of a multimodal model, the decoder's."""
        decoder = [self.sizes.module_path(linear.path) for linear in self.sizes.linears if linear.quantised]
        if self.skeleton.config.get_text_config() is not self.skeleton.config:
            return decoder
        others = (path for path, module in self.skeleton.named_modules() if _is_quantised(module, self.skeleton))
        return [*decoder, *(path for path in others if path not in decoder)]


def read_architecture(model_config: dict[str, Any], name: str) -> Architecture:
    """Read the architecture from the content of a config.json.

    Args:
        name: the model's, for messages.

    Raises:
        ModelError: transformers does not know the architecture, or the config.json is invalid.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    config = _config_object(model_config, name)
    _check_quantisation(model_config, name)
    mappings: dict[str, Any] = {
        "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING,
        "AutoModelForImageTextToText": MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    }
    auto_class = next((auto for auto, mapping in mappings.items() if type(config) in mapping), None)
    if auto_class is None:
        raise ModelError(
            f"{name} is of type '{config.model_type}', which transformers cannot load as a language model."
        )
    model_class = mappings[auto_class][type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    if model_class.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    _check_text_alone(model_class, config, name)
    skeleton = _skeleton(model_class, config, name)
    decoder = text_decoder(skeleton)
    decoder_path = path_within(skeleton, decoder)
    text_config = config.get_text_config()
    positions = _value(text_config, "max_position_embeddings")
    return Architecture(
        model_type=str(config.model_type),
        auto_class=auto_class,
        decoder=decoder_path,
        sizes=_sizes(skeleton, decoder, decoder_path, text_config),
        stock_attention=_stock_attention(model_class),
        packing_obstacle=_packing_obstacle(model_class, text_config),
        positions=int(positions) if positions else None,
        has_position_table=_has_position_table(decoder),
        tied=_is_tied(skeleton),
        embeddings=path_within(skeleton, skeleton.get_input_embeddings()),
        output=path_within(skeleton, output) if (output := skeleton.get_output_embeddings()) is not None else None,
        rope_limit=_rope_limit(text_config),
        in_4_bits=bool(model_config.get("quantization_config")),
        skeleton=skeleton,
    )


def _config_object(model_config: dict[str, Any], name: str) -> PretrainedConfig:
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(model_config.get("model_type"))
    if "model_type" not in model_config:
        raise ModelError(f"The config.json of {name} has no model_type, so it is not that of a transformers model.")
    if model_type not in CONFIG_MAPPING:
        raise ModelError(
            f"{name} is of type '{model_type}', which transformers {__version__} does not know: a newer version may, "
            "but code from the model's repository is never run."
        )
    try:
        config: PretrainedConfig = CONFIG_MAPPING[model_type].from_dict(
            {key: _decoded(value) for key, value in model_config.items() if key != "auto_map"}
        )
        value = _value(config.get_text_config(), "num_hidden_layers")
        layers = None if value is None else int(value)
    except Exception as error:  # each architecture validates its values with exceptions of its own
        raise ModelError(f"The config.json of {name} is invalid ({first_line(error)}).") from None
    if layers is None:
        raise ModelError(
            f"{name} is of type '{model_type}', which is not one decoder with a number of layers: use one such as Llama."
        )
    if not 0 < layers <= MOST_LAYERS:
        raise ModelError(f"The config.json of {name} is invalid: it asks for {layers} layers.")
    return config


def is_valid_config(model_config: dict[str, Any]) -> bool:
    """Whether transformers accepts the content of a config.json."""
    try:
        _config_object(model_config, "")
    except ModelError:
        return False
    return True


def _check_quantisation(model_config: dict[str, Any], name: str) -> None:
    settings = model_config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("load_in_4bit") or settings.get("_load_in_4bit"):
        return
    method = (
        "bitsandbytes to 8 bits" if settings.get("load_in_8bit") else settings.get("quant_method", "an unknown method")
    )
    raise ModelError(
        f"{name} is quantised with {method}: use the model in 16 bits that it was made from, or one that bitsandbytes has "
        "quantised to 4 bits."
    )


def _check_text_alone(model_class: Any, config: PretrainedConfig, name: str) -> None:
    """Check that the model continues text, without another input.

    Raises:
        ModelError: it needs an image, for example, or is an encoder-decoder.
    """
    parameters = signature(model_class.forward).parameters.values()
    needed = [
        each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    needed = [each for each in needed if each not in ("self", "input_ids")]
    advice = "it cannot be trained on text alone; use a decoder such as Llama."
    if needed:
        raise ModelError(f"{name} is of type '{config.model_type}', which needs {' and '.join(needed)}: {advice}")
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        raise ModelError(f"{name} is of type '{config.model_type}', an encoder-decoder: {advice}")


def _decoded(value: Any) -> Any:
    """A value of config.json, with the objects that transformers writes for infinity and NaN as numbers."""
    if isinstance(value, dict):
        return (
            float(value["__float__"]) if value.keys() == {"__float__"} else {k: _decoded(v) for k, v in value.items()}
        )
    return [_decoded(part) for part in value] if isinstance(value, list) else value


def _skeleton(model_class: Any, config: PretrainedConfig, name: str) -> Any:
    import torch

    try:
        with torch.device("meta"):
            skeleton = model_class(config)
    except ImportError as error:
        reason = first_line(error).partition(". ")[0]
        raise ModelError(f"{name} needs a library that is not installed ({reason}): install it.") from None
    except Exception as error:  # whatever an architecture raises about sizes that do not fit together
        raise ModelError(f"The config.json of {name} does not describe a model ({first_line(error)}).") from None
    return skeleton


def _sizes(skeleton: Any, decoder: Any, decoder_path: str, text_config: Any) -> ModelSizes:
    import torch
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.pytorch_utils import Conv1D

    output = skeleton.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    quantised = sum(module.weight.numel() for module in skeleton.modules() if _is_quantised(module, skeleton))
    # Some decoders contain the encoder of another modality (Phi-4-multimodal).
    encoders = tuple(
        f"{path}."
        for path, module in decoder.named_modules()
        if isinstance(module, PreTrainedModel) and type(module.config) is not type(decoder.config)
    )
    linears = []
    for path, module in decoder.named_modules():
        if isinstance(module, kinds) and module is not output and not path.startswith(encoders):
            rows, columns = module.weight.shape
            width, out = (rows, columns) if isinstance(module, Conv1D) else (columns, rows)
            linears.append(Linear(path, width, out, _is_quantised(module, skeleton), isinstance(module, Conv1D)))
    experts = sum(parameter.numel() for path, parameter in skeleton.named_parameters() if is_expert(path, parameter))
    total = sum(parameter.numel() for parameter in skeleton.parameters())
    layers = sum(isinstance(module, GradientCheckpointingLayer) for module in decoder.modules())
    hidden = int(text_config.hidden_size)
    heads = int(_value(text_config, "num_attention_heads") or 1)
    return ModelSizes(
        hidden=hidden,
        ffn=_active_ffn(text_config, hidden),
        layers=layers or int(text_config.num_hidden_layers),
        heads=heads,
        kv_heads=int(_value(text_config, "num_key_value_heads") or heads),
        head=int(_value(text_config, "head_dim") or hidden // heads),
        vocabulary=int(skeleton.get_input_embeddings().weight.shape[0]),
        linears=tuple(linears),
        quantised_weights=quantised,
        expert_weights=experts,
        active_expert_weights=int(experts * _active_share(text_config)),
        weights=total,
        keeps_scores=_keeps_scores(decoder, text_config),
        without_adapter=names_without_adapter(decoder),
        decoder=decoder_path,
        output=path_within(
            skeleton, skeleton.get_input_embeddings() if _is_tied(skeleton) or output is None else output
        ).rpartition(".")[2],
    )


def _is_quantised(module: torch.nn.Module, skeleton: Any) -> bool:
    """Whether bitsandbytes quantises a layer: no subclass, no experts that are one parameter, and not the output layer."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return type(module) in (torch.nn.Linear, Conv1D) and module is not skeleton.get_output_embeddings()


def _value(config: Any, name: str) -> Any:
    """A value of a config, None if it is missing or, as in Gemma 4, differs between layers."""
    try:
        return getattr(config, name, None)
    except Exception:  # of a kind that transformers does not export
        return None


def _active_ffn(text_config: Any, hidden: int) -> int:
    """Width of the MLP that one token passes through: of all experts that it is routed to."""
    width = _value(text_config, "intermediate_size") or _value(text_config, "n_inner") or 4 * hidden
    width = _largest(width)
    active = _largest(_value(text_config, "num_experts_per_tok"))
    if not active or _number_of_experts(text_config) < 2:
        return width
    expert = _largest(_value(text_config, "moe_intermediate_size")) or width
    return active * expert + _largest(_value(text_config, "shared_expert_intermediate_size"))


def _largest(value: Any) -> int:
    """A number of a config, or the largest of those of its layers; 0 without one."""
    return max(map(int, value), default=0) if isinstance(value, (list, tuple)) else int(value or 0)


def _number_of_experts(text_config: Any) -> int:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return max(_largest(_value(text_config, name)) for name in names)


def _active_share(text_config: Any) -> float:
    return (_largest(_value(text_config, "num_experts_per_tok")) or 1) / max(1, _number_of_experts(text_config))


def _keeps_scores(decoder: torch.nn.Module, text_config: Any) -> bool:
    """Whether attention is computed as products, by a soft cap (Gemma 2) or sinks (gpt-oss)."""
    sinks = any(name.endswith(".sinks") for name, _ in decoder.named_parameters())
    return sinks or bool(_value(text_config, "attn_logit_softcapping"))


def _stock_attention(model_class: Any) -> str:
    from training.model.attention import stock_name

    return stock_name(model_class)


def _packing_obstacle(model_class: Any, text_config: Any) -> str | None:
    kinds = set(_value(text_config, "layer_types") or ()) - ATTENTION_KINDS
    if model_class._is_stateful or any(word in kind for kind in kinds for word in RECURRENT_WORDS):
        return "its recurrent or convolution layers would carry their state from one conversation to the next"
    if kinds:
        return f"its layers of the kind {', '.join(sorted(kinds))} are not known to keep packed conversations apart"
    if not model_class._supports_attention_backend:
        return "its attention layers cannot be replaced"
    return None


def _has_position_table(decoder: torch.nn.Module) -> bool:
    return any(
        name.rpartition(".")[2] in POSITION_TABLES
        for names in (decoder.named_modules(), decoder.named_buffers())
        for name, _ in names
    )


def _is_tied(skeleton: Any) -> bool:
    output = skeleton.get_output_embeddings()
    return output is not None and output.weight is skeleton.get_input_embeddings().weight


def _rope_limit(text_config: Any) -> int | None:
    rope = _value(text_config, "rope_parameters") or {}
    settings = [
        rope,
        *(value for value in rope.values() if isinstance(value, dict)),
    ]  # some have one for each layer type
    for setting in settings:
        if setting.get("rope_type") in LENGTH_DEPENDENT_ROPE:
            limit = setting.get("original_max_position_embeddings") or text_config.max_position_embeddings
            return int(limit)
    return None
