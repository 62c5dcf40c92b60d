# SPDX-License-Identifier: BSD-3-Clause
"""``shifter-imagegw``: serve, worker, check-config, verify (docs/gateway-operation.md). Imports wait until needed.

Exit status: 0 done, or stopped by SIGTERM or SIGINT; 1 configuration, address or a check is wrong; 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from shifter_imagegw.config import Configuration
    from shifter_imagegw.verify import Verifier

_COUNT = click.IntRange(1, 1000)


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415

        click.echo(f"shifter-imagegw {version('shifter')}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config", "file", metavar="FILE", help="imagemanager.json; else $GWCONFIG, else the installation's own."
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
@click.pass_context
def gateway(context: click.Context, file: str | None) -> None:
    """The image gateway of Shifter: makes images of registries available to clusters."""
    from shifter_imagegw.installation import configuration_file  # noqa: PLC0415

    context.obj = configuration_file(file, os.environ.get("GWCONFIG")).absolute()


@gateway.command()
@click.option("--bind", default="0.0.0.0:5000", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--workers", default=2, show_default=True, type=_COUNT, metavar="N", help="API processes.")
@click.option(
    "--with-workers", default=0, type=click.IntRange(0, 1000), metavar="N", help="Also run N conversion workers."
)
@click.pass_obj
def serve(file: Path, bind: str, workers: int, with_workers: int) -> None:
    """Answer clients, in the foreground.

    Without --with-workers, somebody else must run workers: pulls wait for one.
    """
    configuration = _configure(file)
    if with_workers:
        own = [sys.executable, "-I", "-m", "shifter_imagegw", "--config", str(file)]
        from shifter_imagegw.supervisor import Supervisor  # noqa: PLC0415

        server = [*own, "serve", "--bind", bind, "--workers", str(workers)]
        raise SystemExit(Supervisor(server, [*own, "worker"], with_workers).run())
    from shifter_imagegw.errors import ConfigurationError  # noqa: PLC0415
    from shifter_imagegw.server import listen  # noqa: PLC0415
    from shifter_imagegw.server import serve as serve_api  # noqa: PLC0415

    try:
        serve_api(configuration, listen(bind), workers)
    except ConfigurationError as error:
        _fail(error)


@gateway.command()
@click.pass_obj
def worker(file: Path) -> None:
    """Work on pulls until SIGTERM; run as many as you like, on any host with the same database."""
    configuration = _configure(file)
    from shifter_imagegw.app import create_worker  # noqa: PLC0415
    from shifter_imagegw.errors import ConfigurationError  # noqa: PLC0415

    try:
        create_worker(configuration).run()
    except ConfigurationError as error:
        _fail(error)
    # A thread that still waits for a registry must not meet an interpreter that is being taken apart.
    sys.stderr.flush()
    os._exit(0)


@gateway.command("check-config")
@click.pass_obj
def check_config(file: Path) -> None:
    """Say what is wrong with the configuration on this host; run it as the gateway's account."""
    from shifter_imagegw.config import load_configuration, problems  # noqa: PLC0415
    from shifter_imagegw.errors import ConfigurationError  # noqa: PLC0415

    try:
        found = problems(load_configuration(file))
    except ConfigurationError as error:
        _fail(error)
    for problem in found:
        click.echo(str(problem))
    errors = sum(problem.severity == "error" for problem in found)
    click.echo(f"{file}: {errors} errors, {len(found) - errors} warnings")
    raise SystemExit(1 if errors else 0)


@gateway.command()
@click.argument("system")
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--rebuild", is_flag=True, help="Make the IMAGEs again and compare the bytes; publishes nothing.")
@click.pass_obj
def verify(file: Path, system: str, images: tuple[str, ...], rebuild: bool) -> None:
    """Compare image files, metadata, tag index and records of SYSTEM, or of some of its IMAGEs (reference or id).

    Prints a line for each problem. Run it as the gateway's account.
    """
    if rebuild and not images:
        raise click.UsageError("--rebuild takes at least one IMAGE: it fetches and converts each of them again")
    configuration = _configure(file)
    from shifter_imagegw.app import create_verifier  # noqa: PLC0415
    from shifter_imagegw.errors import ShifterError  # noqa: PLC0415

    try:
        verifier = create_verifier(configuration, system)
        found = verifier.problems(images)
        for problem in found:
            click.echo(problem)
        differ = sum([_rebuild(configuration, verifier, image) for image in images]) if rebuild else 0
        click.echo(f"{system}: {len(set(images)) or verifier.count()} images, {len(found) + differ} problems")
    except ShifterError as error:
        _fail(error)
    raise SystemExit(1 if found or differ else 0)


def _rebuild(configuration: Configuration, verifier: Verifier, image: str) -> bool:
    """Whether it is not what it was, or cannot be told."""
    from shifter_imagegw.app import SquashfsEngine  # noqa: PLC0415
    from shifter_imagegw.errors import PullError  # noqa: PLC0415
    from shifter_imagegw.rebuild import rebuild  # noqa: PLC0415

    try:
        difference = rebuild(
            configuration, verifier.find(image), lambda directory: SquashfsEngine(directory, configuration.limits)
        )
    except PullError as error:
        difference = f"cannot be compared: {error}"
    click.echo(f"{image}: {difference or 'identical'}")
    return difference is not None


def _configure(file: Path) -> Configuration:
    """What serve and worker begin with: the configuration, logs, and files for this account only."""
    from shifter_imagegw.config import load_configuration  # noqa: PLC0415
    from shifter_imagegw.errors import ConfigurationError  # noqa: PLC0415
    from shifter_imagegw.logs import configure_logging  # noqa: PLC0415

    os.umask(0o077)
    try:
        configuration = load_configuration(file)
    except ConfigurationError as error:
        _fail(error)
    configure_logging(configuration.log_level)
    return configuration


def _fail(error: Exception) -> NoReturn:
    click.echo(f"shifter-imagegw: {error}", err=True)
    raise SystemExit(1)


def main() -> None:
    """Entry point."""
    gateway(prog_name="shifter-imagegw")
