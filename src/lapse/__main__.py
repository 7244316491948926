"""`python -m lapse`."""

from lapse.cli import main

main()
