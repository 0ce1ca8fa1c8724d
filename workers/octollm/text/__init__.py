"""Plain text as data: sentences, lines, words, quotes. Pure; arms and memory both use it."""
