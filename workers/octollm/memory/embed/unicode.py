"""What every embedder says of a text that no tokenizer and no wire can carry."""

NO_UNICODE = "a text cannot be embedded: it holds half of a surrogate pair, which is no Unicode"
