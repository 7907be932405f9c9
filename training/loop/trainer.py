"""trl's SFTTrainer, with the parts changed where it would lose a checkpoint, time, or a token.

trl is kept for its fused output layer; transformers' Trainer below it for accumulation, several GPUs and resuming. Changed
here: how windows are laid end to end (`collate`), the loss (trl's own gathers four metrics with a wait for the GPU each), the
held-out loss (one sum over trained tokens, not a mean of means), and how checkpoints come to be.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import Trainer, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from training.config import RunConfig
from training.data.collate import collate
from training.memory.batches import BatchConfig
from training.model.base import adapters_to_fp32, checkpoint_layers
from training.model.runtime import Runtime
from training.run_folder import PARTIAL, RunFolder, commit_folder, rotate, writing

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

COUNTS = "counts.json"  # in a checkpoint, beside what transformers writes
OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw_8bit": "paged_adamw_8bit", "paged_adamw_32bit": "paged_adamw_32bit"}


def trainer_arguments(
    config: RunConfig, place: Runtime, choice: BatchConfig, folder: RunFolder, *, accumulate: int, steps: int
) -> SFTConfig:
    """The run's options as trl's. `steps`: optimiser steps of the whole run."""
    tenth = max(1, steps // 10)
    on_gpu = place.device != "cpu"
    fused = "_fused" if on_gpu and choice.optimizer == "adamw" else ""
    args = SFTConfig(
        output_dir=str(folder.checkpoints / PARTIAL),
        use_cpu=not on_gpu,
        seed=config.seed,
        data_seed=config.seed,
        bf16=place.precision == "bf16",
        fp16=place.precision == "fp16",
        per_device_train_batch_size=choice.micro_batch,
        per_device_eval_batch_size=choice.micro_batch,
        gradient_accumulation_steps=accumulate,
        gradient_checkpointing=False,  # by layer instead: model.checkpoint_layers
        optim=OPTIMIZERS[choice.optimizer] + fused,
        learning_rate=config.lr,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_steps=steps,
        eval_strategy="steps",
        eval_steps=config.eval_every or tenth,
        save_strategy="steps",
        save_steps=config.save_every or tenth,
        save_total_limit=None,  # checkpoints are kept by folder.rotate
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        report_to="none",  # watch.tensorboard writes elsewhere: what is in output_dir goes with it
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        padding_free=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    if args.n_gpu > 1:  # one process trains on one GPU, however many it sees; torchrun starts one for each
        args._n_gpu = 1
    return args


class QloraTrainer(SFTTrainer):
    """Trains adapters on windows of whole conversations (columns input_ids, labels, seq_lengths)."""

    def __init__(
        self,
        model: PeftModel,
        args: SFTConfig,
        *,
        train: Dataset,
        test: Dataset | None,
        tokenizer: PreTrainedTokenizerFast,
        folder: RunFolder,
        config: RunConfig,
        choice: BatchConfig,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.folder, self.config = folder, config
        self.trained_tokens: Any = 0  # labels of all steps so far, over all processes; counted where they lie
        self._left: dict[str, float] | None = None
        if test is None:
            args.eval_strategy = "no"
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=test,
            processing_class=tokenizer,
            callbacks=[*callbacks, _GoOn(self)],
        )
        self.data_collator = collate
        # Our loss divides by the labels of the whole step, which are counted for it, whatever the model's own loss does.
        self.model_accepts_loss_kwargs = True
        self._signature_columns: Any = ["input_ids", "labels", "seq_lengths"]
        adapters_to_fp32(model)
        fuse_output_layer(model)
        checkpoint_layers(model, choice.checkpoint_layers)

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and the number of their labels, over all processes."""
        batches, labels = super().get_batch_samples(*arguments)
        self.trained_tokens = self.trained_tokens + labels
        return batches, labels

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sum of the trained tokens' losses over their number in the whole step (all micro-batches, all processes)."""
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        tokens = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -outputs.log_probs.sum() / torch.as_tensor(tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages what the division already shared out
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The held-out loss: the sum over trained tokens divided by their number."""
        total = held_out_loss(self)
        self.log(total)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, total)
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Without trl's own metrics, which its loss would have gathered."""
        Trainer.log(self, logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The card is written once, with the adapter (export.py)."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Into `.partial`, and renamed once everything is on disk: a checkpoint that is there is whole."""
        partial = self.folder.checkpoints / PARTIAL
        step = self.state.global_step
        first = self.is_world_process_zero()
        with writing(f"The checkpoint of step {step} in {self.folder.checkpoints}", self.folder.path):
            if first and partial.exists():
                shutil.rmtree(partial)
            self.accelerator.wait_for_everyone()
            Trainer._save_checkpoint(self, model, trial)
            left = self._counts()
            self.accelerator.wait_for_everyone()
            if first:
                (partial / f"checkpoint-{step}" / COUNTS).write_text(json.dumps(left), "utf-8")
                commit_folder(partial / f"checkpoint-{step}", self.folder.checkpoints / f"step-{step:06d}")
                shutil.rmtree(partial)
                rotate(self.folder, self.config.keep)

    def _counts(self) -> dict[str, float]:
        """What transformers leaves out of a checkpoint: the losses since the last logged step, and the labels so far."""
        loss: Any = self.accelerator.reduce(self._tr_loss.detach().clone(), "mean")
        return {
            "loss": float(loss),
            "logged": self._globalstep_last_logged,
            "trained_tokens": int(self.trained_tokens),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._left = json.loads((Path(resume_from_checkpoint) / COUNTS).read_text("utf-8"))

    def take_up(self) -> None:
        """Count on from where the checkpoint left off, if there is one."""
        if self._left is not None:
            self._tr_loss += self._left["loss"]
            self._globalstep_last_logged = int(self._left["logged"])
            self.trained_tokens = int(self._left["trained_tokens"])
            self._left = None


class _GoOn(TrainerCallback):
    """Has the trainer take up its counts, once transformers has set them to nothing."""

    def __init__(self, trainer: QloraTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.take_up()


def fuse_output_layer(model: PeftModel) -> None:
    """trl's fused output layer, with only what the loss needs (trl's trainer adds entropy and accuracy, at a cost)."""
    base: Any = model.get_base_model()
    base.__dict__.pop("forward", None)
    add_fused_lm_head(base)


def held_out_loss(trainer: QloraTrainer) -> dict[str, float]:
    """`eval_loss` (nats a token), `eval_perplexity`, `eval_tokens`, summed over all processes."""
    model = trainer.model
    assert model is not None
    training = model.training
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader():
            inputs = trainer._prepare_inputs(batch)
            with trainer.compute_loss_context_manager():
                outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            sums += torch.stack([-outputs.log_probs.double().sum(), outputs.label_mask.double().sum()])
    model.train(training)
    loss, tokens = trainer.accelerator.reduce(sums, "sum").tolist()
    mean = loss / max(tokens, 1)
    return {"eval_loss": mean, "eval_perplexity": float(torch.tensor(mean).exp()), "eval_tokens": tokens}
