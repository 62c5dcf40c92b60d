# SPDX-License-Identifier: BSD-3-Clause
"""The command line of shifterimg (gateway contract, section 15.1; docs/shifterimg.md).

Only click is imported here: `--help` and `--version` need neither network nor munge nor a configuration, and are as
quick as the interpreter allows. Options are accepted before the mode, as they always were, and after it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from udiroot.shifterimg.errors import ClientError
from udiroot.shifterimg.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_NO_MODE = "Must specify mode (images, lookup, pull)!"
_WRONG_MODE = "Invalid mode specified"
_WRONG_OPTION = "Missing an argument!"

Parameters = dict[str, Any]


class Modes(click.Group):
    """The group of modes, with the historic words for a mode that does not exist."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """UsageError for an unknown mode."""
        if self.get_command(ctx, args[0]) is None:
            raise click.UsageError(f"{_WRONG_MODE}: {args[0]!r}", ctx)
        return super().resolve_command(ctx, args)


_FLAGS = (
    click.Option(["--verbose", "-v"], is_flag=True, help="Also print what the gateway answers."),
    click.Option(["--config"], metavar="FILE", help="Read FILE instead of the installation's udiRoot.conf."),
    click.Option(["--munge-socket"], metavar="PATH", hidden=True, help="With --config: socket of munged."),
)
_JSON = click.Option(["--json"], is_flag=True, help="Print JSON.")
_LISTS = (
    click.Option(["--user", "-u", "users"], multiple=True, metavar="LIST", help="Users who may use the image."),
    click.Option(["--group", "-g", "groups"], multiple=True, metavar="LIST", help="Groups that may use the image."),
)


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import version  # noqa: PLC0415 -- slow to import, and nothing else needs it

    click.echo(f"shifterimg {version('shifter')}")
    context.exit()


_VERSION = click.Option(
    ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print the version."
)


def _options(parameters: Parameters) -> Options:
    return Options(**{name: parameters[name] for name in Options._fields if parameters.get(name)})


@click.pass_context
def _remember(context: click.Context, /, **parameters: Any) -> None:
    context.obj = _options(parameters)
    if context.invoked_subcommand is None:
        raise click.UsageError(_NO_MODE, context)


program = Modes(
    "shifterimg",
    callback=_remember,
    params=[*_FLAGS, _JSON, *_LISTS, _VERSION],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask the image gateway of this cluster for images.",
    subcommand_metavar="MODE [IMAGE]",
)


def _mode(
    name: str, text: str, *, word: str | None = None, required: bool = True, options: Sequence[click.Option] = (),
    hidden: bool = False,
) -> None:
    """Add the mode ``name``; ``word`` is what its one argument is called."""

    @click.pass_context
    def callback(
        context: click.Context, /, word: str | None = None, rest: tuple[str, ...] = (), **parameters: Any
    ) -> int:
        return _start(name, context.obj.merged(_options(parameters)), word, rest)

    # Words too many were always ignored: they still are, but not silently.
    arguments: list[click.Parameter] = [click.Argument(["rest"], nargs=-1, metavar="")]
    if word is not None:
        arguments.insert(0, click.Argument(["word"], required=required, metavar=word))
    program.add_command(
        click.Command(
            name, callback=callback, params=[*arguments, *options, *_FLAGS], help=text, hidden=hidden,
            options_metavar="[OPTIONS]",
        )
    )  # fmt: skip


_mode("images", "List the images that you may use.", options=[_JSON])
_mode("lookup", "Print the id of IMAGE.", word="IMAGE", options=[_JSON])
_mode("pull", "Make the gateway fetch IMAGE, and wait until it is ready.", word="IMAGE", options=[_JSON, *_LISTS])
_mode(
    "pullnb", "Start to pull IMAGE, or report on the pull, without waiting.", word="IMAGE", options=[_JSON, *_LISTS],
    hidden=True,
)  # fmt: skip
_mode("login", "Store user name and password for a registry, LOCATION.", word="[LOCATION]", required=False)
_mode("queue", "List the pulls that are under way or failed.", options=[_JSON])
_mode("expire", "Remove IMAGE (administrators).", word="IMAGE", hidden=True)
_mode("autoexpire", "Remove images that nobody used for long (administrators).", hidden=True)


def _start(mode: str, options: Options, word: str | None, rest: tuple[str, ...]) -> int:
    if options.munge_socket and not options.config:
        raise click.UsageError("--munge-socket goes only with --config")
    for ignored in rest:
        click.echo(f"shifterimg: the word {ignored!r} is ignored", err=True)
    from udiroot.shifterimg.modes import start  # noqa: PLC0415 -- see above: only a mode needs all the rest

    return start(mode, options, () if word is None else (word,))


def run(arguments: Sequence[str]) -> int:
    """Exit status of a call: 0 done, 1 it did not work, 2 wrong usage, 130 interrupted."""
    try:
        status = program.main(list(arguments), prog_name="shifterimg", standalone_mode=False)
    except click.UsageError as error:
        return _explain(error)
    except ClientError as error:
        from udiroot.shifterimg.output import tell  # noqa: PLC0415

        tell(str(error))
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return 130
    return status if isinstance(status, int) else 0


def _explain(error: click.UsageError) -> int:
    """The historic first line, the reason, and the usage, all on standard error (section 15.1)."""
    text = error.format_message()
    if isinstance(error, (click.NoSuchOption, click.BadOptionUsage, click.MissingParameter)):
        text = f"{_WRONG_OPTION}\n{text}"
    context = error.ctx or click.Context(program, info_name="shifterimg")
    click.echo(f"{text}\n{context.get_usage()}\nTry 'shifterimg --help' for help.", err=True)
    return 2


def main() -> NoReturn:
    """Entry point of the installed program."""
    _tolerate_any_locale()
    sys.exit(_finish(lambda: run(sys.argv[1:])))


def _tolerate_any_locale() -> None:
    """A tag that the terminal cannot show is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _finish(call: Callable[[], int]) -> int:
    """The status of ``call``, or 1 when its output could not be written; nobody is told that a pipe was closed."""
    try:
        status = call()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer must not fail again when the interpreter ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if not isinstance(error, BrokenPipeError):
            click.echo(f"shifterimg: reading or writing failed: {error}", err=True)
        return 1
    return status
