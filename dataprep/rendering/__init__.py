"""Conversations to text: chat templates, what is trained in them, and rendering at the speed of columns."""

from dataprep.rendering.loading import list_templates, load_template
from dataprep.rendering.probe import Check, check_template
from dataprep.rendering.renderer import Batch, Renderer
from dataprep.rendering.template import Template, render

__all__ = ["Batch", "Check", "Renderer", "Template", "check_template", "list_templates", "load_template", "render"]
