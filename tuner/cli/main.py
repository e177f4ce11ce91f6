"""The entry point: parses, dispatches, and turns errors into one line and an exit status."""

from __future__ import annotations

import errno
import sys

import typer

from tuner.cli.app import app
from tuner.errors import TunerError, one_line
from tuner.outputs import checked_output, to_nowhere

_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status.

    0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
    """
    try:
        with checked_output():
            status = app(args=arguments or ["--help"], prog_name="tuner", standalone_mode=False)
            sys.stdout.flush()
    except TunerError as error:
        _print_error(one_line(error))
        return error.exit_status
    except typer.TyperException as error:  # what the command line itself cannot parse
        _print_error(_usage(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _print_error("stopped")
        return 130
    except (
        BrokenPipeError,
        SystemExit,
    ) as error:  # the reader, such as `head`, has closed the pipe
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        to_nowhere(sys.stdout)
        return 0
    except ModuleNotFoundError as error:  # where only what prediction needs was installed
        name = str(error.name).partition(".")[0]
        if name == "tuner":
            raise
        _print_error(
            f"this needs {name}, which is not installed: only what predicts is; "
            f"pip install lstm-tuner installs the rest"
        )
        return 1
    except OSError as error:  # a full disk, a folder that may not be written to
        if error.filename is None and error.errno not in _OF_A_DISK:
            raise
        what = error.filename or "what was to be written"
        _print_error(f"{what}: {error.strerror}; check the path, its rights and the disk")
        return 1
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "tuner"
    text = one_line(error.format_message()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; {command} --help shows what there is"


def _print_error(text: str) -> None:
    """Print one line on stderr."""
    try:
        sys.stderr.write(f"tuner: {text}\n")
    except OSError:  # the terminal was closed
        to_nowhere(sys.stderr)
