"""``python -m diffutron``, and the command ``diffutron``."""

import sys


def main() -> None:
    """The command line; Ctrl-C is one line even while it is being imported."""
    try:
        from diffutron.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


if __name__ == "__main__":
    main()
