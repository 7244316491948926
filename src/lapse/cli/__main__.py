"""`python -m lapse.cli`."""

from lapse.cli.main import main

main()
