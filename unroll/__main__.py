"""`python -m unroll`, and the console command `unroll`."""

import sys


def main() -> int:
    """Runs the command line of the apps."""
    try:
        from unroll.apps.core import cli
    except ModuleNotFoundError as error:
        if (error.name or "unroll").partition(".")[0] == "unroll":
            raise
        print(
            f"unroll: the apps need the package {error.name}: pip install 'unroll-keras[apps]'.",
            file=sys.stderr,
        )
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
