"""Plans: their form, the recipes and model proposals they come from, and every check of them. Pure."""
