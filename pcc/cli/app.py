"""The command group: finds commands by name, and turns every foreseen failure into one line and an exit status."""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from pcc.cli import interrupts, streams
from pcc.errors import PccError, PccWarning, shortened, suggestion

COMMANDS = (
    "compile",
    "export",
    "prune",
    "compress",
    "eval",
    "run",
    "bench",
    "verify",
    "tune",
    "inspect",
    "explain",
    "dump",
    "diff-ir",
    "passes",
    "targets",
)
"""Each is ``command`` in the module of its name in this package."""

LIBRARIES = r"(pcc|PIL|numpy|torch|tvm|yaml|pydantic)(\.|$)"
"""Modules whose warnings are not shown; those of a user's own file are."""

LONGEST_WORD = 300
"""What an error shows of a name."""

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
READER_GONE_STATUS = 141
"""Both as a shell reports a program that the signal ended."""


class Commands(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return (
            importlib.import_module(f"pcc.cli.{cmd_name.replace('-', '_')}").command if cmd_name in COMMANDS else None
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"no command '{args[0]}': {suggestion(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, but with whole sentences."""
        rows = [
            (name, command.get_short_help_str(sys.maxsize))
            for name in COMMANDS
            if (command := self.get_command(ctx, name))
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would print an empty line before it hands this on
            raise click.Abort from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="pcc", message="%(prog)s %(version)s")
def cli() -> None:
    """pcc compiles pruned convolutional networks to small native libraries."""


def run(args: Sequence[str]) -> int:
    """Runs one command line and gives its exit status: 0, 2 for wrong use or bad input, 130 when interrupted, 141 when
    nobody reads what it prints.

    What the user can put right is one line on standard error, and so is what the system refuses: files, memory,
    standard output. Anything else is a bug in pcc and keeps its traceback. Warnings of libraries are for programmers
    and are not shown.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.filterwarnings("ignore", module=LIBRARIES)
            warnings.simplefilter("always", PccWarning)
        show = warnings.showwarning
        warnings.showwarning = lambda message, category, *place: (
            streams.say(f"pcc: note: {message}") if category is PccWarning else show(message, category, *place)
        )
        try:
            status = _run(args)
            sys.stdout.flush()
        except click.ClickException as error:
            return _wrong_use(error)
        except PccError as error:
            return _fail(str(error), USAGE_STATUS)
        except (KeyboardInterrupt, click.Abort):
            return _fail("interrupted", INTERRUPTED_STATUS)
        except SystemExit as error:  # pcc's own code returns its status: a network, or a loader, ended the process
            return _fail(_ended(error), USAGE_STATUS)
        except streams.OutputFailed as error:
            return (
                READER_GONE_STATUS
                if error.reader_gone
                else _fail(f"cannot write standard output: {error}", USAGE_STATUS)
            )
        except (OSError, MemoryError, RuntimeError) as error:
            refused = _refused(error)
            if refused is None:
                raise
            return _fail(refused, USAGE_STATUS)
    return status


def _run(args: Sequence[str]) -> int:
    """The exit status of a command line; errors as click and the commands raise them."""
    status = cli.main(args=list(args), prog_name="pcc", standalone_mode=False)
    return status if isinstance(status, int) else 0


def _wrong_use(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        streams.say(error.format_message())
        return USAGE_STATUS
    message = error.format_message()
    if isinstance(error, click.UsageError):
        message = f"{_one_line(message).rstrip('.')} ({error.ctx.command_path if error.ctx else 'pcc'} --help)"
    return _fail(message, USAGE_STATUS)


def _ended(error: SystemExit) -> str:
    """What to say of a user's code that wants the process to end, and where it does."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not Path(frame.filename).is_relative_to(Path(__file__).parents[1])
        and "_sitebuiltins" not in frame.filename  # exit() and quit() are functions there
    ]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"the model's or the data's code calls sys.exit({error.code!r}){place}: make it raise an error, or return"


def _refused(error: Exception) -> str | None:
    """What the system refused, and for which file; None for an error that is a bug in pcc."""
    if isinstance(error, OSError):
        files = [
            os.fsdecode(file)
            for file in (error.filename, error.filename2)
            if isinstance(file, str | bytes | os.PathLike)
        ]
        return ": ".join([*files, error.strerror or str(error) or type(error).__name__])
    # PyTorch has no exception of its own for the memory of a processor.
    if (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or type(error).__name__ == "OutOfMemoryError"
    ):
        return "not enough memory: a smaller input, a smaller batch or fewer threads need less"
    return None


def _fail(message: str, status: int) -> int:
    if interrupts.came():
        message, status = "interrupted", INTERRUPTED_STATUS
    streams.say(f"pcc: error: {_one_line(message)}")
    return status


def _one_line(message: str) -> str:
    return " ".join(shortened(word, LONGEST_WORD) for word in message.split())


def main() -> None:
    """What the ``pcc`` script calls."""
    with streams.guarded(), interrupts.noted():
        try:
            status = run(sys.argv[1:])
        except Exception:
            if not interrupts.came():
                raise
            status = _fail("interrupted", INTERRUPTED_STATUS)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Under torchrun, PyTorch's threads abort now and then while the interpreter ends, when all is written
        # ("terminate called without an active exception", 2 runs of 18), and torchrun reports a failure. So the
        # interpreter does not end, the process does.
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
