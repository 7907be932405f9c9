"""Parsing of rendered texts back to messages."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.rendering import Renderer, load_template
from dataprep.rendering.parsing import Parser
from tests.support.chats import Chat, chats, frame, render_rows

ZEPHYR = Renderer(load_template("zephyr"))


@settings(max_examples=40, deadline=None)
@given(conversations=st.lists(chats(), min_size=1, max_size=6), damaged=st.sets(st.integers(0, 5)))
def test_texts_of_several_shapes_are_parsed_as_each_is_alone(conversations: list[Chat], damaged: set[int]) -> None:
    messages = frame(conversations)["messages"]
    texts = [
        row.text[: len(row.text) // 2 if index in damaged else None]
        for index, row in enumerate(render_rows(ZEPHYR, conversations))
    ]
    together = Parser(ZEPHYR.planner).parses_back(messages, pa.array(texts)).to_list()
    alone = [
        Parser(ZEPHYR.planner).parses_back(messages[index : index + 1], pa.array([text]))[0]
        for index, text in enumerate(texts)
    ]
    assert together == alone
    assert not any(together[index] for index in damaged if index < len(conversations))
