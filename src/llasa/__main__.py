"""Starts the command line, as `llasa` and as `python -m llasa`."""

import signal


def main() -> None:
    """Runs `llasa.cli.main`. While the command line is imported, Ctrl-C ends the process, as SIGTERM does."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llasa import cli

    cli.main()


if __name__ == "__main__":
    main()
