"""`python -m lpm_core` is the `lpm` command."""

from lpm_core.cli import main

main()
