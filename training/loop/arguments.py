"""The run's options as trl's configuration."""

from __future__ import annotations

from trl.trainer.sft_config import SFTConfig

from training.config import RunConfig
from training.memory.batches import BatchConfig
from training.model.runtime import Runtime
from training.run_folder import PARTIAL, RunFolder

OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw_8bit": "paged_adamw_8bit", "paged_adamw_32bit": "paged_adamw_32bit"}
DEFAULT_INTERVALS = 10  # checkpoints and held-out losses in a run, unless --save-every or --eval-every is given


def trainer_arguments(
    config: RunConfig, runtime: Runtime, batch: BatchConfig, folder: RunFolder, *, accumulate: int, steps: int
) -> SFTConfig:
    """Translate the run's options to trl's.

    Args:
        accumulate: micro-batches in a step of the optimizer.
        steps: steps of the whole run.
    """
    interval = max(1, steps // DEFAULT_INTERVALS)
    evaluation_steps = config.eval_every or interval
    on_gpu = runtime.device != "cpu"
    fused = "_fused" if on_gpu and batch.optimizer == "adamw" else ""
    args = SFTConfig(
        output_dir=str(folder.checkpoints / PARTIAL),
        use_cpu=not on_gpu,
        seed=config.seed,
        data_seed=config.seed,
        bf16=runtime.precision == "bf16",
        fp16=runtime.precision == "fp16",
        per_device_train_batch_size=batch.micro_batch,
        per_device_eval_batch_size=batch.micro_batch,
        gradient_accumulation_steps=accumulate,
        gradient_checkpointing=False,  # set for each layer by model.base.checkpoint_layers
        optim=OPTIMIZERS[batch.optimizer] + fused,
        learning_rate=config.lr,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_steps=steps,
        eval_strategy="steps",
        eval_steps=evaluation_steps,
        save_strategy="steps",
        save_steps=evaluation_steps if config.keep_best else config.save_every or interval,
        save_total_limit=None,  # old checkpoints are removed by loop.checkpoints
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        report_to="none",  # loop.trackers adds the callbacks of --report-to
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # every process computes the same ones
        padding_free=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        router_aux_loss_coef=0.0,  # routers are not trained, so their balance cannot be
    )
    if args.n_gpu > 1:  # a process trains on one GPU, even if it sees several; torchrun starts one process for each
        args._n_gpu = 1
    return args
