"""`python -m octollm` is the command line."""

from octollm.cli.main import main

main()
