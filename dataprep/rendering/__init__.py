"""Chat templates: conversations to text, with the spans that are trained and the template's own control tokens.

A template is run in three ways, which must give the same text:

* `template.render` runs plain Jinja on plain strings; it is the reference.
* `symbols` runs the template once for each *shape* of conversation, on placeholders instead of contents. If the
  template never inspects a content, the result is a plan that renders all conversations of the shape as columns.
* `taint` runs the template once for each conversation, on strings that record who wrote each character. It serves the
  templates that do inspect contents.

The last two are also the only two mechanisms that tell a template's text from the messages' text. Both are needed:
placeholders are proven for every content at once but cannot answer a question about a content, and tainted strings
answer any question but have to run for each conversation.

Templates that do not come with dataprep run in worker processes with limits on CPU time and memory: see `isolation`.
"""

from dataprep.rendering.loading import list_templates, load_template
from dataprep.rendering.probe import TemplateCheck, check_template, text_around_contents
from dataprep.rendering.renderer import Batch, Renderer
from dataprep.rendering.template import Template, render

__all__ = [
    "Batch",
    "Renderer",
    "Template",
    "TemplateCheck",
    "check_template",
    "list_templates",
    "load_template",
    "render",
    "text_around_contents",
]
