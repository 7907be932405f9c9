"""The log-probability of each trained token, from trl's fused output layer or from the model's own logits.

trl runs the model below the output layer, and computes logits of the trained tokens only, tile by tile. It takes scale and
soft cap of the logits from the configuration, and some models compute theirs in another way. So its log-probabilities are
compared with the model's logits once; where they differ, the model computes all of its logits, which takes more memory.
"""

from __future__ import annotations

from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any

from training.data.encode import IGNORED
from training.model.attention import stock_attention
from training.model.sizes import text_decoder
from training.model.text_pass import some_tokens, text_logits

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

# Of the root mean square of the differences of log-probabilities, relative to the standard deviation of the logits.
BOUND = {2: 0.1, 4: 1e-3}  # by the bytes of a weight: rounding to bf16 gives 0.01
WHOLE = "dataprep_whole_logits"  # attribute of a model that computes all of its logits
WHOLE_LOGITS_NOTE = (
    "The model computes the logits of every token, because its own logits are not those of trl's fused output layer; this takes "
    "more memory."
)


def fuse_output_layer(model: PeftModel) -> None:
    """Give a model `fused_lm_head=True`, with which it returns `log_probs` and `label_mask`.

    Raises:
        ModelError: the model cannot compute text.
    """
    base: Any = model.get_base_model()
    if not hasattr(base, WHOLE):
        _name_backbone(base)
        _fuse(base)
        setattr(base, WHOLE, not _has_own_logits(base))
    (_use_whole_logits if computes_whole_logits(model) else _fuse)(base)


def computes_whole_logits(model: PeftModel) -> bool:
    """Whether the model computes all of its logits, because trl's fused output layer gives others."""
    return bool(getattr(model.get_base_model(), WHOLE))


def _fuse(base: Any) -> None:
    """Add trl's fused output layer, which computes only what the loss needs (trl's trainer adds entropy and accuracy)."""
    from trl.trainer.utils import add_fused_lm_head

    base.__dict__.pop("forward", None)
    add_fused_lm_head(base)


def _name_backbone(base: Any) -> None:
    """Name the model below the output layer, which trl calls, where transformers names one that does not exist (Llama 4)."""
    decoder = text_decoder(base)
    if base.base_model is base and decoder is not base:
        base.base_model_prefix = next(name for name, child in base.named_children() if child is decoder)


def _has_own_logits(base: Any) -> bool:
    """Whether the fused log-probabilities of a few tokens are those of the model's logits."""
    import torch

    ids = some_tokens(base)
    logits = text_logits(base)[:, :-1].float()
    expected = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    with stock_attention(base), torch.no_grad():
        try:
            fused = base(input_ids=ids, labels=ids, fused_lm_head=True).log_probs
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, TypeError, RuntimeError):
            return False
    difference = (fused.float() - expected).square().mean().sqrt() / logits.std()
    return bool(difference <= BOUND[max(2, base.get_input_embeddings().weight.element_size())])


def _use_whole_logits(base: Any) -> None:
    """Compute the log-probabilities from all logits."""
    import torch
    from trl.trainer.utils import FusedCausalLMOutput

    base.__dict__.pop("forward", None)
    own_forward = base.forward

    @wraps(type(base).forward)
    def forward(_: Any, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return own_forward(*args, **kwargs | ({} if labels is None else {"labels": labels}))
        logits, targets = own_forward(*args, **kwargs).logits[:, :-1], labels[:, 1:]
        mask = targets != IGNORED
        trained = logits[mask].float()
        chosen = -torch.nn.functional.cross_entropy(trained, targets[mask], reduction="none")
        return FusedCausalLMOutput(log_probs=chosen.new_zeros(mask.shape).masked_scatter(mask, chosen), label_mask=mask)

    base.forward = MethodType(forward, base)
