"""Read source files, folders, globs and Hub ids into messages (tree formats) or conversations (flat formats)."""
