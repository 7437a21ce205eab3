"""``python -m diffutron``."""

from diffutron.cli.main import main

main()
