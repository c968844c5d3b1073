"""`python -m lb`: the same as `tidegate`."""

from lb.cli import main

main()
