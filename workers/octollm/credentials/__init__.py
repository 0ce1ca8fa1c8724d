"""API keys: their form, their table, and their publication to every process that checks them."""
