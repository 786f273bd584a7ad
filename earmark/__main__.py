"""`python -m earmark` is the `earmark` command."""

from service.command import main

main(prog_name="earmark")
