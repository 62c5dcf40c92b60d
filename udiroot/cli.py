# SPDX-License-Identifier: BSD-3-Clause
"""``udiroot check``: what is wrong with udiRoot.conf on this node (docs/udiroot-configuration.md). ``udiroot explain``
is the part of ``shifter --explain`` that needs no rights.

Only the standard library is needed: it must work where little else does.

Exit status: 0 no errors, 1 errors, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from udiroot.check import Problem, check
from udiroot.check.problem import ERROR, NOTE, WARNING
from udiroot.explain import Incomplete, as_json, as_text, read_explanation
from udiroot.installation import installed_path


class _Version(argparse.Action):
    """Asks for the version only when somebody wants to know."""

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"udiroot {version('shifter')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="udiroot", description="Says what nodes make of their configuration.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checker = commands.add_parser(
        "check",
        help="say what is wrong with udiRoot.conf",
        description="Says everything that is wrong with udiRoot.conf on this node, as root: a user cannot look at "
        "everything. Exit status: 0 no errors, 1 errors, 2 wrong usage.",
    )
    checker.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="instead of the installation's udiRoot.conf"
    )
    checker.add_argument("--json", action="store_true", help="print one JSON object")
    explainer = commands.add_parser("explain", description="Reads what shifter --explain writes.")
    explainer.add_argument("form", choices=("text", "json"))
    return parser


def _count(found: list[Problem], severity: str) -> int:
    return sum(problem.severity == severity for problem in found)


def _check(file: Path | None, as_json: bool) -> int:
    used = installed_path("SYSCONFDIR") / "udiRoot.conf"
    path = file or used
    found = check(path, installed=path.absolute() == used)
    errors = _count(found, ERROR)
    if as_json:
        print(json.dumps({"file": str(path), "errors": errors, "problems": [asdict(problem) for problem in found]}))
    else:
        for problem in found:
            print(problem.text(str(path)))
        print(f"{path}: {errors} errors, {_count(found, WARNING)} warnings, {_count(found, NOTE)} notes")
    return 1 if errors else 0


def _explain(form: str) -> int:
    try:
        told = read_explanation(sys.stdin.buffer.read())
    except Incomplete as error:
        print(f"udiroot: {error}", file=sys.stderr)
        return 1
    print(as_json(told) if form == "json" else as_text(told))
    return 0


def main() -> None:
    """Entry point."""
    arguments = _parser().parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if arguments.command == "explain":
        raise SystemExit(_explain(arguments.form))
    raise SystemExit(_check(arguments.file, arguments.json))
