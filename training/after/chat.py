"""`training chat`: a conversation in the terminal with a run's model or with a GGUF file, by the build's template."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from dataprep.common.text import visible
from training.after.cuda_graph import graphed_decoding
from training.after.finished_run import load_run_model, open_finished_run
from training.after.generate import sampling
from training.after.prompts import Messages, prompt_ids, render
from training.config import at_least, check_seed
from training.errors import ModelError, OptionError

HELP = "/reset starts anew, /system TEXT sets the system text, /exit ends (as Ctrl-D does); Ctrl-C stops an answer."

Show = Callable[[str], None]
Respond = Callable[[Messages, Show], None]  # answers the last message, and shows the answer piece by piece


def chat(respond: Respond, read_line: Callable[[str], str], write: Show, system: str | None = None) -> None:
    """Read messages and show answers until the input ends.

    Args:
        respond: answers a conversation.
        read_line: reads a line after showing a prompt; raises EOFError at the end.
        write: shows a piece of text without a line break.
        system: the system text to begin with.
    """
    messages = _beginning(system)
    write(HELP + "\n")
    while True:
        try:
            line = read_line("> ").strip()
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write(f"\n{HELP}\n")
            continue
        command, _, rest = line.partition(" ")
        if command == "/exit":
            return
        if command == "/reset":
            messages = _beginning(system)
        elif command == "/system":
            system = rest.strip() or None
            messages = _beginning(system)
            write(
                "The conversation starts anew with this system text.\n" if system else "The system text is removed.\n"
            )
        elif line.startswith("/"):
            write(f"Unknown command {visible(command)}. {HELP}\n")
        elif line:
            messages = _turn(respond, [*messages, {"role": "user", "content": line}], write)


def _beginning(system: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


def _turn(respond: Respond, messages: list[dict[str, str]], write: Show) -> list[dict[str, str]]:
    """Show the answer to `messages`; returns them with the answer, or without the last message if there is none."""
    pieces: list[str] = []

    def show(piece: str) -> None:
        pieces.append(piece)
        write(visible(piece))

    try:
        respond(messages, show)
    except KeyboardInterrupt:
        write(" [stopped]")
    except ModelError as error:
        write(f"{error}\n")
        return messages[:-1]
    write("\n")
    return [*messages, {"role": "assistant", "content": "".join(pieces).strip()}]


def responder(run: Path | None, gguf: Path | None, *, max_new_tokens: int, temperature: float, seed: int) -> Respond:
    """Answer with the model of a finished run or with a GGUF file; exactly one of them is given.

    Raises:
        OptionError: none or both are given, or a number is invalid.
    """
    at_least(1, max_new_tokens=max_new_tokens)
    at_least(0, temperature=temperature)
    check_seed(seed)
    if (run is None) == (gguf is None):
        raise OptionError("Chat with one model: pass --run with a run's folder, or --gguf with a file.")
    if run is not None:
        return run_responder(run, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    assert gguf is not None
    return gguf_responder(gguf, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def run_responder(path: Path, *, max_new_tokens: int, temperature: float, seed: int) -> Respond:
    """Answer with the model of the finished run in `path`.

    Raises:
        RunError, ModelError: the run or its base model cannot be opened.
    """
    import torch
    from transformers import TextStreamer

    from training.model import attention

    run = open_finished_run(path)
    template = (run.folder.adapter / "chat_template.jinja").read_text("utf-8")
    special = run.record["template"]
    end = run.tokenizer.id_of(special["end_token"])
    pad = run.tokenizer.padding_id(special["end_token"])
    decoder = run.tokenizer.for_transformers(special["end_token"], template)
    model = load_run_model(run)
    positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    torch.manual_seed(seed)

    class Streamer(TextStreamer):
        """Passes on each finished piece of text."""

        def __init__(self, show: Show) -> None:
            super().__init__(decoder, skip_prompt=True, skip_special_tokens=True)
            self.show = show

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.show(text)

    def respond(messages: Messages, show: Show) -> None:
        ids = prompt_ids(template, messages, special, run.tokenizer)
        _require_positions(len(ids), positions)
        tokens = torch.tensor([ids], device=next(model.parameters()).device)
        most = min(max_new_tokens, positions - len(ids)) if positions else max_new_tokens
        with attention.stock_attention(model), graphed_decoding(model, len(ids) + most) as decoding, torch.no_grad():
            model.generate(  # type: ignore[no-untyped-call]
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=most,
                eos_token_id=end,
                pad_token_id=pad,
                streamer=Streamer(show),
                **decoding,
                **sampling(temperature),
            )

    return respond


def gguf_responder(file: Path, *, max_new_tokens: int, temperature: float, seed: int) -> Respond:
    """Answer with a GGUF file in llama.cpp, by the chat template that the file embeds.

    Raises:
        OptionError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot load the file, or it embeds no chat template.
    """
    from training.after.gguf_check import can_check

    if not can_check():
        raise OptionError("--gguf needs llama-cpp-python: install it with pip install 'dataprep-training[gguf-check]'.")
    from llama_cpp import Llama, llama_model_get_vocab, llama_vocab_is_eog

    try:
        llama = Llama(str(file), n_ctx=0, n_gpu_layers=-1, seed=seed, verbose=False)
    except ValueError as error:
        raise ModelError(f"llama.cpp cannot load {file} ({error}).") from None
    template = llama.metadata.get("tokenizer.chat_template")
    if template is None:
        raise ModelError(f"{file} embeds no chat template: export it with training export, or chat with --run.")

    def text_of(token: int) -> str:
        return str(llama.detokenize([token], special=True).decode(errors="replace")) if token >= 0 else ""

    vocabulary = llama_model_get_vocab(llama.model)
    marks = {"bos_token": text_of(llama.token_bos()), "eos_token": text_of(llama.token_eos())}

    def respond(messages: Messages, show: Show) -> None:
        text = render(template, messages, marks, answer=True)
        ids = llama.tokenize(text.encode(), add_bos=False, special=True)
        _require_positions(len(ids), llama.n_ctx())
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        left = min(max_new_tokens, llama.n_ctx() - len(ids))
        for token in llama.generate(ids, temp=temperature, top_k=0, top_p=1.0, repeat_penalty=1.0):
            if left == 0 or llama_vocab_is_eog(vocabulary, token):
                break
            show(decoder.decode(llama.detokenize([token])))
            left -= 1

    return respond


def _require_positions(tokens: int, positions: int) -> None:
    """Refuse a conversation that leaves no position for an answer.

    Raises:
        ModelError: says how long it is and what helps.
    """
    if positions and tokens >= positions:
        raise ModelError(
            f"The conversation has {tokens} tokens and the model {positions} positions: /reset starts anew."
        )
