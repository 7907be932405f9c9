"""Conversations in, a versioned, checked, documented build for fine-tuning out."""

__version__ = "0.1.0"
