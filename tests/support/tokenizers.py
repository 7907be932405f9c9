"""Small tokenizers with the traits of today's model families, for tests of ids."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.model.tokenizer import ChatTokenizer

CORPUS = [
    "The assistant answers the user. assistant user system\n\nHello there, how are you?\n",
    "Say yes or no.\n```python\nprint('x')\n```\n  two  spaces\tand tabs", "naïve café ﬁne Ünïcode 你好 😀",
] * 4  # fmt: skip
CONTROLS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")

# Llama 3's split: contractions, words, up to three digits, punctuation, line breaks, white space.
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _train(tokenizer: Tokenizer, *, alphabet: bool, byte_fallback: bool = False) -> Tokenizer:
    special = ["<unk>"]
    if byte_fallback:
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _controls(tokenizer: Tokenizer, **traits: bool) -> ChatTokenizer:
    """Add the controls, `<|im_end|>` with the given traits, and finish the tokenizer as `load_tokenizer` does."""
    tokenizer.add_special_tokens(
        [
            AddedToken(content, special=True, **({"normalized": False} | (traits if content == "<|im_end|>" else {})))
            for content in CONTROLS
        ]
    )
    tokenizer.encode_special_tokens = True
    return ChatTokenizer(tokenizer, {"eos_token": "<|im_end|>", "unk_token": "<unk>"}, None)


def byte_level(
    split: str | None = None,
    *,
    prefix_space: bool = False,
    normalizer: normalizers.Normalizer | None = None,
    **traits: bool,
) -> ChatTokenizer:
    """GPT-2's kind; with `split` Llama 3's and, with NFC, Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=split is None)
    if split is not None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), level])
    else:
        tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    return _controls(_train(tokenizer, alphabet=True), **traits)


def sentencepiece_like(scheme: str, **traits: bool) -> ChatTokenizer:
    """Llama 2's kind (`prepend`: its normaliser), Metaspace (`first`, `always`), or Gemma's (`never`)."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if scheme in ("first", "always"):
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        prefix = [normalizers.Prepend("▁")] if scheme == "prepend" else []
        trained.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    trained.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return _controls(_train(trained, alphabet=False, byte_fallback=True), **traits)


def with_added_text(tokenizer: ChatTokenizer, *contents: str) -> ChatTokenizer:
    """Add tokens that are not special, as Gemma has them for line breaks and tags."""
    tokenizer.backend.add_tokens([AddedToken(content, normalized=False) for content in contents])
    return tokenizer


FAMILIES: dict[str, Callable[[], ChatTokenizer]] = {
    "GPT-2": byte_level,
    "GPT-2 with prefix space": lambda: byte_level(prefix_space=True),
    "Llama 3 (tiktoken)": lambda: byte_level(LLAMA_3),
    "Qwen (NFC)": lambda: byte_level(LLAMA_3, normalizer=normalizers.NFC()),
    "byte-level, rstrip": lambda: byte_level(rstrip=True),
    "byte-level, lstrip": lambda: byte_level(lstrip=True),
    "Llama 2 (Prepend)": lambda: sentencepiece_like("prepend"),
    "Mistral (Metaspace first)": lambda: sentencepiece_like("first"),
    "Metaspace always": lambda: sentencepiece_like("always"),
    "Gemma (no prefix, added text)": lambda: with_added_text(sentencepiece_like("never"), "\n\n", "<b>"),
    "Phi-3 (Prepend, rstrip)": lambda: sentencepiece_like("prepend", rstrip=True),
    "normalized control": lambda: sentencepiece_like("never", normalized=True),
    "lstrip and rstrip": lambda: sentencepiece_like("first", lstrip=True, rstrip=True),
}
