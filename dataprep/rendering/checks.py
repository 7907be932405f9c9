"""What the quality gate checks in rendered texts: properties of the template, and whether a text parses back."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from dataprep.common.errors import TemplateError
from dataprep.rendering.parsing import Parser
from dataprep.rendering.renderer import Renderer
from dataprep.rendering.template import Template, render
from dataprep.tables import ASSISTANT, USER


class TemplateChecks:
    """Checks of texts that `renderer` rendered."""

    def __init__(self, renderer: Renderer) -> None:
        template = renderer.template
        self.begin_token = template.bos_token
        self.end_token = template.eos_token
        self.special_tokens: Sequence[str] = template.special_tokens
        self.forbidden_in_content: Sequence[str] = template.forbidden_in_content
        self.frames_pairs = _frames_pairs(template)
        self._renderer = renderer
        self._parser = Parser(renderer.planner)

    def parses_back(self, messages: pl.Series, text: pa.StringArray, tools: pl.Series | None = None) -> pl.Series:
        """Return whether each text gives exactly its messages back; null if they were rendered row by row."""
        return self._parser.parses_back(messages, text, tools)

    def unwritten(self, messages: pl.Series, tools: pl.Series | None = None) -> pl.DataFrame:
        """Count, for each conversation, what the template left out of the rendered text.

        Returns: `unwritten_system`, `unwritten_messages` and `unwritten_reasoning`; see `Renderer.unwritten`.
        """
        columns = {"messages": messages} | ({} if tools is None else {"tools": tools})
        return self._renderer.unwritten(pl.DataFrame(columns))


def _frames_pairs(template: Template) -> bool:
    """Return whether the template writes a begin and an end token around each pair of question and answer, as Llama 2's."""
    pair = [{"role": USER, "content": "a"}, {"role": ASSISTANT, "content": "b"}]
    begin, end = template.bos_token, template.eos_token
    try:
        text = render(template, pair + pair)
    except TemplateError:  # the template accepts one turn only
        return False
    return bool(begin and end) and text.count(str(begin)) == 2 == text.count(str(end))
