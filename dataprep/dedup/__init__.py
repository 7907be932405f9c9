"""Find exact and near duplicates, leaks between splits, and benchmark contamination: pure functions over columns."""
