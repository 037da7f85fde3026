"""`python -m penstock` is the `penstock` command; the supervisor starts its children this way."""

from penstock.cli import main

main()
