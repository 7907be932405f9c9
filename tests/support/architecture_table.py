"""Print the Markdown table of supported architectures: `python -m tests.support.architecture_table`.

`tests/training/model/test_architectures.py` trains each of them and compares its loss with plain transformers.
"""

from __future__ import annotations

from tests.support.tiny_models import ARCHITECTURES, tiny_config
from training.model.architecture import read_architecture
from training.model.sizes import STATE_SPACE_LAYERS

FAMILIES = {
    "llama": "Llama 2 and 3", "mistral": "Mistral", "ministral3": "Ministral 3", "qwen2": "Qwen2, Qwen2.5", "qwen3": "Qwen3",
    "gemma": "Gemma", "gemma2": "Gemma 2", "gemma3_text": "Gemma 3 (text)", "phi": "Phi-1.5, Phi-2", "phi3": "Phi-3, Phi-4",
    "olmo2": "OLMo 2", "olmo3": "OLMo 3", "granite": "Granite", "smollm3": "SmolLM3", "glm4": "GLM-4",
    "cohere2": "Command R7B, Command A", "starcoder2": "StarCoder2", "exaone4": "EXAONE 4", "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3-MoE", "granitemoe": "Granite MoE", "phimoe": "Phi-3.5-MoE", "deepseek_v3": "DeepSeek-V3", "llama4_text": "Llama 4 (text)", "gemma4": "Gemma 4 (text part)",
    "aya_vision": "Aya Vision (text part)", "gpt_oss": "gpt-oss",
    "gpt2": "GPT-2", "gpt_neox": "GPT-NeoX, Pythia", "opt": "OPT", "nemotron": "Nemotron", "stablelm": "StableLM",
    "falcon": "Falcon", "gptj": "GPT-J", "bloom": "BLOOM", "mpt": "MPT", "lfm2": "LFM2",
    "recurrent_gemma": "RecurrentGemma", "bamba": "Bamba", "jamba": "Jamba", "falcon_h1": "Falcon-H1", "granitemoehybrid": "Granite 4 hybrid",
    "qwen3_next": "Qwen3-Next", "qwen3_5": "Qwen3.5 (text part)", "gemma3": "Gemma 3 (text part)",
    "mistral3": "Mistral Small 3 (text part)", "qwen2_5_vl": "Qwen2.5-VL (text part)",
}  # fmt: skip


def table() -> str:
    """The table: family, transformers' model type, how conversations are laid out, and where adapters go."""
    lines = ["| family | model type | conversations | adapters |", "|---|---|---|---|"]
    for name, architecture in ARCHITECTURES.items():
        sizes = read_architecture(tiny_config(name, 300).to_dict(), name).sizes
        adapters = "attention; experts and routers have none" if sizes.expert_weights else "all linear layers"
        if projections := sorted(sizes.without_adapter & STATE_SPACE_LAYERS, reverse=True):
            adapters += f"; the state-space layers' {' and '.join(projections)} {'has' if len(projections) == 1 else 'have'} none"
        layout = "packed" if architecture.packed else "one in a row, padded"
        lines.append(f"| {FAMILIES[name]} | `{name}` | {layout} | {adapters} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
