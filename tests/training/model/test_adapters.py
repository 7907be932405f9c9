"""Variants of LoRA: what is trained equals peft's own, and the merged model equals the adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils import transformers_weight_conversion
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.core_model_loading import WeightRenaming

from tests.support.adapted import Adapted, fused, gradients, randomise_adapters
from tests.support.tiny_models import tiny_tokenizer, write_tiny_model
from training.config import RunConfig
from training.data.collate import collate
from training.errors import ModelError
from training.loop.trainer import QloraTrainer
from training.memory.estimate import MemoryInputs, layer_activations
from training.memory.probe import restored_afterwards
from training.model.adapters import adapter_note, add_adapters, check_loadable
from training.model.architecture import read_architecture
from training.model.attention import boundaries
from training.model.base import adapters_to_fp32, load_base
from training.model.identity import read_model_config
from training.model.output_layer import fuse_output_layer
from training.model.runtime import choose_runtime

IDS = torch.tensor([[5, 9, 40, 7, 8, 60, 3]])
PACKED = {"input_ids": IDS, "use_cache": False, **boundaries([IDS.shape[1]], IDS.device)}
PATTERN = r"model\.layers\.1\.self_attn\.(q|v)_proj"
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rslora": ({"rslora": True}, {"use_rslora": True}),
    "dora": ({"dora": True}, {"use_dora": True}),
    "pattern": ({"targets": PATTERN}, {"target_modules": PATTERN}),
    "modules_to_save": (
        {"modules_to_save": "embed_tokens,lm_head"}, {"modules_to_save": ["embed_tokens", "lm_head"]},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_tiny_model("llama", folder, tiny_tokenizer())
    return folder


def ours(folder: Path, **options: Any) -> Any:
    """A run's adapters on an unquantised base, with random B."""
    config = RunConfig(
        data=Path("."), model=str(folder), quantization="none", device="cpu", lora_r=4, attention="sdpa", **options
    )
    torch.manual_seed(0)
    model = add_adapters(load_base(str(folder), None, config, choose_runtime(config)), config)
    randomise_adapters(adapters_to_fp32(model))
    return model.eval()


def trained(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The loss and the gradients of all trained parameters."""
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {"loss": loss, **gradients}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_logits_and_gradients_of_peft(llama: Path, name: str) -> None:
    options, settings = VARIANTS[name]
    model = ours(llama, **options)
    torch.manual_seed(0)
    plain: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    lora = LoraConfig(**plain | settings)
    peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(llama)), lora)
    peft_model.load_state_dict(model.state_dict())
    fuse_output_layer(model)
    outputs = model(**PACKED, labels=IDS, fused_lm_head=True)
    ours_by_name = trained(model, -outputs.log_probs.sum() / outputs.label_mask.sum())
    by_name = trained(peft_model, peft_model.eval()(input_ids=IDS, labels=IDS).loss)
    assert ours_by_name.keys() == by_name.keys()
    for key, value in by_name.items():
        assert torch.allclose(ours_by_name[key], value, rtol=1e-4, atol=1e-6), key


def test_tied_embeddings_of_any_name_are_trained_with_the_output_layer(tmp_path: Path) -> None:
    write_tiny_model("gpt2", tmp_path / "base", tiny_tokenizer())  # its embeddings are named wte
    model = ours(tmp_path / "base", modules_to_save="wte")
    base = model.get_base_model()
    embeddings = base.get_input_embeddings().modules_to_save["default"].weight
    assert base.get_output_embeddings().modules_to_save["default"].weight is embeddings
    torch.nn.init.normal_(embeddings.data)
    model.save_pretrained(str(tmp_path / "adapter"))
    stock: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    again = stock.get_base_model().get_output_embeddings().modules_to_save["default"].weight
    assert torch.equal(again, embeddings) and torch.allclose(
        stock.eval()(IDS).logits, model(**PACKED).logits, atol=1e-5
    )


def test_an_adapter_that_peft_would_not_load_again_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' rules for checkpoints rename the adapter's weights when peft loads them."""
    rules = [WeightRenaming(r"model\.layers\.", "model.decoder.layers.")]
    model = ours(llama)
    check_loadable(model, "tiny")
    for function in ("get_checkpoint_conversion_mapping", "get_model_conversion_mapping"):
        monkeypatch.setattr(transformers_weight_conversion, function, lambda *_, **__: rules)
    with pytest.raises(ModelError, match="cannot load an adapter for tiny again"):
        check_loadable(model, "tiny")


def test_lora_plus_gives_b_a_learning_rate_of_its_own(llama: Path, tmp_path: Path) -> None:
    model = ours(llama)
    trainer = SimpleNamespace(
        optimizer=None, config=SimpleNamespace(lora_plus=16.0, lr=1e-3, weight_decay=0.0), model=model,
        args=TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, learning_rate=1e-3),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "create_optimizer", lambda self, model=None: self.optimizer)
        bound: Any = object.__new__(QloraTrainer)
        bound.__dict__.update(trainer.__dict__)
        optimizer = QloraTrainer.create_optimizer(bound)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {rates[id(p)] for name, p in trained.items() if "lora_A" in name} == {1e-3}
    assert {rates[id(p)] for name, p in trained.items() if "lora_B" in name} == {16 * 1e-3}
    assert len(rates) == len(trained)


def test_the_fused_step_scales_rank_stabilised_adapters_as_peft_does(adapted: Adapted) -> None:
    model, windows, _ = adapted
    inputs = collate([windows[0]], torch.device("cpu"))
    layers: list[Any] = [module for module in model.modules() if "lora_A" in module._modules]
    before = [layer.scaling["default"] for layer in layers]
    with restored_afterwards(model):
        randomise_adapters(model)
        for layer in layers:
            layer.scaling["default"] = 16 / 64**0.5
        expected = gradients(model, inputs, 1)
        model.zero_grad(set_to_none=True)
        with fused(model):
            actual = gradients(model, inputs, 1)
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling["default"] = scaling
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_log_names_the_variant_and_who_computes_it(adapted: Adapted) -> None:
    config = RunConfig(data=Path("."), model="m")
    assert adapter_note(config, 0, adapted.model) is None
    assert adapter_note(config, 14, adapted.model) is None
    assert "10 of 14" in str(adapter_note(config, 10, adapted.model))
    assert "DoRA; peft's own layers" in str(adapter_note(replace(config, dora=True), 0, adapted.model))
    assert "alpha / sqrt(r) = 2)" in str(adapter_note(replace(config, rslora=True), 14, adapted.model))


def test_the_estimate_counts_what_dora_keeps_for_the_backward_pass(llama: Path) -> None:
    kept = {dora: _kept_bytes(ours(llama, dora=dora)) for dora in (False, True)}
    sizes = read_architecture(read_model_config(str(llama), None), str(llama)).sizes
    plain = MemoryInputs(len(IDS[0]), 0, 0, "adamw", 4, "all-linear", False, 4, False, False)
    expected = layer_activations(sizes, replace(plain, dora=True)) - layer_activations(sizes, plain)
    factors = 2 * sum(linear.outputs for linear in sizes.linears) * 4  # and the lengths that they are divided by
    assert kept[True] - kept[False] == pytest.approx(expected * sizes.layers + factors, rel=1e-6)


def _kept_bytes(model: Any) -> int:
    """Bytes of the activations that a forward pass keeps."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # the tensors are held, so that no two have the same address

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        model(**PACKED)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _use_peft_s_dora(model: Any) -> None:
    for module in model.modules():
        for adapter in getattr(module, "lora_variant", {}):
            module.lora_variant[adapter] = DoraLinearVariant()


def test_dora_in_half_precision_has_peft_s_gradients(llama: Path) -> None:
    gradients = {}
    for name in ("ours", "peft"):
        model = ours(llama, dora=True, precision="bf16")
        if name == "peft":
            _use_peft_s_dora(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.base_model.model.model(**PACKED).last_hidden_state
        weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
        (hidden.float() * weights).sum().backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    assert torch.nn.functional.cosine_similarity(gradients["ours"], gradients["peft"], dim=0) > 0.99


def test_dora_with_dropout_scales_what_passes_the_dropout(llama: Path) -> None:
    outputs = []
    for name in ("ours", "peft"):
        model = ours(llama, dora=True, lora_dropout=0.5).train()
        if name == "peft":
            _use_peft_s_dora(model)
        torch.manual_seed(3)
        outputs.append(model(**PACKED).logits)
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
