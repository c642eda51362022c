"""`python -m experiments`, or a sentence where a package that it needs is not installed."""

import sys

from experiments.errors import MISSING

OURS = "", "experiments", "secondorder"  # no installation brings a module of these


def run(arguments: list[str] | None = None) -> int:
    try:
        from experiments.command_line import main

        return main(arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OURS:
            raise
        print(MISSING.format(package), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run())
