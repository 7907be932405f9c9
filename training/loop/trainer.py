"""trl's SFTTrainer with its own collator, loss, held-out loss and checkpoints.

trl provides the fused output layer, and transformers' Trainer accumulation, several GPUs and resuming. Changed here are the
collator (`collate`), the loss (trl's gathers four metrics and waits for the GPU for each), the held-out loss (one sum over
trained tokens instead of a mean of means), and the way in which checkpoints are written.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from peft import PeftModel
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainerCallback, TrainerState
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from training.checksums import find_damage, write_checksums
from training.config import RunConfig
from training.data.collate import collate
from training.errors import RunError
from training.loop.best import best_step
from training.loop.checkpoints import checkpoint_path, remove_old_checkpoints
from training.memory.batches import BatchConfig
from training.model.base import checkpoint_layers
from training.model.output_layer import fuse_output_layer
from training.model.sharding import data_parallel
from training.run_folder import PARTIAL, RunFolder, commit_folder, write_errors

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

COUNTS_FILE = "counts.json"  # in a checkpoint, beside the files that transformers writes


class Counts(TypedDict):
    """What transformers does not save in a checkpoint."""

    loss: float  # sum of the losses since the last logged step
    logged: int  # that step
    trained_tokens: int


class QloraTrainer(SFTTrainer):
    """Train adapters on windows of whole conversations (columns input_ids, labels, seq_lengths)."""

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
        batch: BatchConfig,
        packed: bool,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.folder, self.config = folder, config
        # Labels of all steps so far, over all processes; becomes a tensor on the device, to avoid waiting for the GPU.
        self.trained_tokens: Any = 0
        self._restored: Counts | None = None
        self._modules: list[torch.nn.Module] | None = None  # of the model as it is wrapped for training
        if test is None:
            args.eval_strategy = "no"
        trained = [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=test,
            processing_class=tokenizer,
            callbacks=[*callbacks, _RestoreCounts(self)],
        )
        self.data_collator = partial(collate, packed=packed)
        # compute_loss divides by the labels of the whole step, which transformers counts only for models that take them.
        self.model_accepts_loss_kwargs = True
        self._signature_columns: Any = ["input_ids", "labels", "seq_lengths"]
        for parameter, value in trained:  # trl rounds them to bf16 if the base is quantised
            parameter.data = value
        fuse_output_layer(model)
        checkpoint_layers(model, batch.checkpoint_layers)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """transformers' optimizer or, with --lora-plus, peft's with another learning rate for B."""
        if self.optimizer is None and self.config.lora_plus is not None:
            from peft.optimizers import create_loraplus_optimizer

            optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
            adapted: Any = self.model
            self.optimizer = create_loraplus_optimizer(
                model=adapted,
                optimizer_cls=optimizer_class,
                loraplus_lr_ratio=self.config.lora_plus,
                loraplus_lr_embedding=self.config.lr,
                loraplus_weight_decay=self.config.weight_decay,
                **settings,
            )
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """Wrap a divided model for data parallelism; accelerate refuses one, although only its frozen part is divided."""
        if not self.config.shard or not training or isinstance(model, DistributedDataParallel):
            return super()._wrap_model(model, training, dataloader)
        prepared = self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)  # for autocast
        return data_parallel(prepared, self.args.device)

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and the number of their labels over all processes."""
        batches, labels = super().get_batch_samples(*arguments)
        self.trained_tokens = self.trained_tokens + labels
        return batches, labels

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As transformers', which sets the mode of each module in each pass: 19 ms for 7B, while the GPU waits."""
        if self._modules is None:
            self._modules = list(model.modules())
        if all(module.training for module in self._modules):
            model.train = lambda: model
        try:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        finally:
            vars(model).pop("train", None)
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: transformers would walk all parameters in each pass, 26 ms for 7B."""
        return 0

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sum of the trained tokens' losses divided by their number in the whole step, over all processes."""
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        tokens = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -outputs.log_probs.sum() / torch.as_tensor(tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # because DDP averages the gradients over the processes
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Compute and log the held-out loss."""
        metrics = held_out_loss(self)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log without trl's own metrics, which only its own loss gathers, and without operations, which are not counted."""
        Trainer.log(self, {name: value for name, value in logs.items() if name != "total_flos"}, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card: the adapter's card is written at the end of the run."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write the checkpoint to `.partial` and rename it once it is on disk, so that every checkpoint is complete."""
        partial = self.folder.checkpoints / PARTIAL
        step = self.state.global_step
        first = self.is_world_process_zero()
        with write_errors(f"The checkpoint of step {step} in {self.folder.checkpoints}", self.folder.path):
            if first and partial.exists():
                shutil.rmtree(partial)
            self.accelerator.wait_for_everyone()
            Trainer._save_checkpoint(self, model, trial)
            counts = self._counts()
            self.accelerator.wait_for_everyone()
            if first:
                written = partial / f"checkpoint-{step}"  # transformers' name
                (written / COUNTS_FILE).write_text(json.dumps(counts), "utf-8")
                write_checksums(written)
                commit_folder(written, checkpoint_path(self.folder, step))
                shutil.rmtree(partial)
                best = best_step(self.state.log_history) if self.config.keep_best else None
                remove_old_checkpoints(self.folder, self.config.keep, best[0] if best else None)

    def _counts(self) -> Counts:
        loss: Any = self.accelerator.reduce(self._tr_loss.detach().clone(), "mean")
        return {
            "loss": float(loss),
            "logged": self._globalstep_last_logged,
            "trained_tokens": int(self.trained_tokens),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._restored = json.loads((Path(resume_from_checkpoint) / COUNTS_FILE).read_text("utf-8"))

    def restore_finished(self, checkpoint: Path) -> None:
        """Load the checkpoint of the last step, which needs no more training."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        assert self._restored is not None
        self.trained_tokens = self._restored["trained_tokens"]

    def load_best(self) -> tuple[int, float] | None:
        """Load the adapter of the step with the lowest held-out loss; returns the step and the loss, None without one.

        Raises:
            RunError: its checkpoint is damaged.
        """
        best = best_step(self.state.log_history)
        if best is None:
            return None
        checkpoint = checkpoint_path(self.folder, best[0])
        damage = find_damage(checkpoint)
        if damage is not None:
            raise RunError(f"The best checkpoint {checkpoint} is damaged ({damage}): restore it, or start a new run.")
        self._load_from_checkpoint(str(checkpoint))
        return best

    def restore_counts(self) -> None:
        """Continue the counts of the checkpoint that the run is resumed from, if any."""
        if self._restored is not None:
            self._tr_loss += self._restored["loss"]
            self._globalstep_last_logged = self._restored["logged"]
            self.trained_tokens = self._restored["trained_tokens"]
            self._restored = None


class _RestoreCounts(TrainerCallback):
    """Restore the trainer's counts after transformers has set them to zero at the start of training."""

    def __init__(self, trainer: QloraTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.restore_counts()


def held_out_loss(trainer: QloraTrainer) -> dict[str, float]:
    """`eval_loss` (nats per token), `eval_perplexity` and `eval_tokens`, over all processes."""
    model = trainer.model
    assert model is not None
    was_training = model.training
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader():
            inputs = trainer._prepare_inputs(batch)
            with trainer.compute_loss_context_manager():
                outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            sums += torch.stack([-outputs.log_probs.double().sum(), outputs.label_mask.double().sum()])
    model.train(was_training)
    loss, tokens = trainer.accelerator.reduce(sums, "sum").tolist()
    mean = loss / max(tokens, 1)
    return {"eval_loss": mean, "eval_perplexity": float(torch.tensor(mean).exp()), "eval_tokens": tokens}
