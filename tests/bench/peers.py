"""The trainers that tests/bench/qlora.py compares with: trl as its documentation shows it, and unsloth."""

from __future__ import annotations

import sys
import tempfile
import time
from importlib import import_module
from typing import Any

from tests.support.training_builds import guanaco_rows

WARM_STEPS = 3  # first steps, which are not timed
STEPS = 12
ROWS = 452  # of the 517 with an answer: they fill 96 windows, so that one and two processes train in the same order


def run_trl(name: str, model: str, batch: int) -> dict[str, Any]:
    """(a) and (b): trl on a text column, as its documentation shows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{model}/tokenizer.json", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=name == "b",
    )
    base = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=nf4, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa"
    )
    shared: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch,
        "max_steps": STEPS,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": True,
        "learning_rate": 2e-4,
        "max_grad_norm": 0.3,
        "disable_tqdm": True,
        "dataset_text_field": "text",
    }
    own: dict[str, Any] = {"max_length": 1024, "optim": "paged_adamw_32bit"}
    lora = LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    if name == "b":
        own = {"max_length": 2048, "packing": True, "packing_strategy": "bfd", "use_liger_kernel": True}
        lora = LoraConfig(r=64, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    data = Dataset.from_dict({"text": [row["text"] for row in guanaco_rows()[:ROWS]]})
    clock = token_clock()
    trainer = SFTTrainer(
        model=base,
        args=SFTConfig(**shared, **own),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[clock],
    )
    count_tokens(trainer, clock)
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return measured_by(clock) | {
        "settings": f"batch {batch}, {own['max_length']} tokens, checkpointing {trainer.args.gradient_checkpointing}"
    }


def run_unsloth(model: str, batch: int, checkpointing: bool = False) -> dict[str, Any]:
    """(e): unsloth on a text column, as its documentation shows, with its own packing if this version has it."""
    import torch

    unsloth: Any = import_module("unsloth")  # before transformers, which it changes
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    base, _ = unsloth.FastLanguageModel.from_pretrained(
        model, max_seq_length=2048, dtype=torch.bfloat16, load_in_4bit=True
    )
    adapted = unsloth.FastLanguageModel.get_peft_model(
        base, r=64, lora_alpha=16, lora_dropout=0, bias="none", random_state=42,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if checkpointing else False,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{model}/tokenizer.json", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    clock = token_clock()
    trainer = SFTTrainer(
        model=adapted,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, max_steps=STEPS, logging_steps=1,
            save_strategy="no", report_to="none", bf16=True, learning_rate=2e-4, max_grad_norm=0.3, disable_tqdm=True,
            dataset_text_field="text", max_length=2048, packing=True, optim="adamw_8bit",
        ),
        train_dataset=Dataset.from_dict({"text": [row["text"] for row in guanaco_rows()[:ROWS]]}),
        processing_class=tokenizer,
        callbacks=[clock],
    )  # fmt: skip
    count_tokens(trainer, clock)
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    loaded = {name: name in sys.modules for name in ("xformers", "flash_attn")}
    return measured_by(clock) | {
        "settings": f"batch {batch}, packing, checkpointing {checkpointing}; unsloth {unsloth.__version__}, loaded: {loaded}"
    }


def token_clock() -> Any:
    """A callback that notes the time of each step and the number of tokens up to it; `count_tokens` lets it count."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.tokens: list[int] = []
            self.seen: Any = 0  # a tensor, so that counting does not wait for the GPU

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.times.append(time.perf_counter())
            self.tokens.append(int(self.seen))

    return Clock()


def count_tokens(trainer: Any, clock: Any) -> None:
    """Count the tokens of each batch that `trainer` trains on, without padding. trl's own count is not in unsloth's trainer."""
    train = trainer.training_step

    def training_step(model: Any, inputs: dict[str, Any], *more: Any, **options: Any) -> Any:
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        clock.seen = clock.seen + (ids.numel() if mask is None else mask.sum())
        return train(model, inputs, *more, **options)

    trainer.training_step = training_step


def measured_by(clock: Any) -> dict[str, Any]:
    """Speed and peak memory of a trl run."""
    import torch

    seconds = clock.times[-1] - clock.times[WARM_STEPS - 1]
    return {
        "tokens_per_s": (clock.tokens[-1] - clock.tokens[WARM_STEPS - 1]) / seconds,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
    }
