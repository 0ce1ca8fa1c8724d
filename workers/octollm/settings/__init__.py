"""The settings: their types, their defaults and the files that change them."""
