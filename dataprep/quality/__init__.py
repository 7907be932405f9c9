"""The quality gate: facts about every rendered conversation, and the expectations that they must meet."""
