# SPDX-License-Identifier: BSD-3-Clause
"""What each mode does, from the options to the exit status (gateway contract, 15.7, 15.8; docs/adr/0004)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from udiroot.shifterimg import acl, images, logins, output, progress, pull
from udiroot.shifterimg.errors import ClientError, LoginsUnusable, RequestRefused
from udiroot.shifterimg.gateway import Gateways, Request
from udiroot.shifterimg.munge import Munge
from udiroot.shifterimg.settings import load_settings, parse_image, require_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from udiroot.shifterimg.options import Options
    from udiroot.shifterimg.settings import ImageName, Settings

INTERRUPTED = 130


class Client(NamedTuple):
    """What every mode works with."""

    options: Options
    settings: Settings
    munge: Munge

    def gateways(self) -> Gateways:
        return Gateways(self.settings, self.munge, self.trace)

    def trace(self, text: str) -> None:
        """A line of `--verbose`: with the output, unless a machine reads that."""
        if self.options.verbose:
            stream = sys.stderr if self.options.json else sys.stdout
            print("\n".join(map(output.printable, text.splitlines())), file=stream, flush=True)


def start(mode: str, options: Options, words: tuple[str, ...]) -> int:
    """Run ``mode``; returns the exit status, raises ClientError."""
    settings = load_settings(options.config)
    client = Client(options, settings, Munge(options.munge_socket))
    for remark in settings.remarks:
        client.trace(remark)
    return _MODES[mode](client, words)


def _images(client: Client, _words: tuple[str, ...]) -> int:
    records = output.objects(client.gateways().ask(Request("GET", "list", "list"))["list"])
    if client.options.json:
        output.print_json(records)
    else:
        for line in output.image_lines(records):
            print(line)
    return 0


def _lookup(client: Client, words: tuple[str, ...]) -> int:
    image = parse_image(words[0], client.settings)
    try:
        record = client.gateways().ask(Request("GET", "lookup", "id", image))
    except RequestRefused as error:
        hint = f", or not for you; `shifterimg pull {image}` fetches it" if error.status == 404 else ""
        raise ClientError(f"{image}: {error}{hint}") from None
    identifier = images.identifier(record)
    if identifier is None:
        raise ClientError(f"{image}: the gateway knows it but gives no id; its status is {images.status(record)}")
    if client.options.json:
        output.print_json(record)
    else:
        print(identifier)
    return 0


def _pull(client: Client, words: tuple[str, ...]) -> int:
    image, ask = _puller(client, words[0])
    shown = progress.choose(image, verbose=client.options.verbose, machine=client.options.json)

    def note(text: str) -> None:
        shown.end()
        output.tell(text)

    try:
        record = pull.follow(ask, shown.show, note)
    except KeyboardInterrupt:
        note(f"{image}: interrupted; the pull goes on at the gateway, and the same command shows it again")
        return INTERRUPTED
    finally:
        shown.end()
    if client.options.json:
        output.print_json(record)
    return _verdict(image, record)


def _pull_without_waiting(client: Client, words: tuple[str, ...]) -> int:
    image, ask = _puller(client, words[0])
    record = ask()
    status = images.status(record)
    if client.options.json:
        output.print_json(record)
    else:
        print(output.progress_line(image, status))
    return 0 if status in images.IN_PROGRESS else _verdict(image, record)


def _puller(client: Client, word: str) -> tuple[ImageName, Callable[[], dict[str, object]]]:
    """The image, and how to ask for it: the stored logins travel in each request's credential."""
    image = parse_image(word, client.settings)
    body = acl.pull_body(client.options.users, client.options.groups)
    payload = logins.payload(logins.home_directory(), client.settings.system, client.munge, output.tell)
    gateways = client.gateways()
    request = Request("POST", "pull", "status", image, body, payload)

    def ask() -> dict[str, object]:
        try:
            return gateways.ask(request)
        except RequestRefused as error:
            raise ClientError(f"{image} cannot be pulled: {error}") from None

    return image, ask


def _verdict(image: ImageName, record: dict[str, object]) -> int:
    status = images.status(record)
    if status == images.READY:
        return 0
    reason = images.text(record, "status_message")
    if reason == images.MISSING:
        reason = "the gateway gives no reason"
    raise ClientError(f"{image}: the pull ended with {status}: {reason}")


def _login(client: Client, words: tuple[str, ...]) -> int:
    from udiroot.shifterimg.prompt import ask_login  # noqa: PLC0415 -- no other mode needs a terminal

    system, home = require_system(client.settings), logins.home_directory()
    if home is None:
        raise LoginsUnusable(f"uid {os.getuid()} is not in the passwd database, so there is no home directory")
    location = words[0] if words else "default"
    logins.check_key(system, location)
    user, password = ask_login(location)
    logins.check_login(user, password)
    credential = client.munge.encode(f"{user}:{password}".encode())
    logins.store(home, f"{system}:{location}", credential, output.tell)
    return 0


def _expire(client: Client, words: tuple[str, ...]) -> int:
    image = parse_image(words[0], client.settings)
    answer = client.gateways().ask(Request("GET", "expire", "status", image))["status"]
    if answer is None:
        raise ClientError(f"{image}: no such image on {client.settings.system}")
    if answer is not True:
        raise ClientError(f"{image}: not removed: you are no administrator of {client.settings.system} at the gateway")
    return 0


def _autoexpire(client: Client, _words: tuple[str, ...]) -> int:
    answer = client.gateways().ask(Request("GET", "autoexpire", "status"))["status"]
    if not isinstance(answer, list):
        raise ClientError(f"nothing was removed: you are no administrator of {client.settings.system} at the gateway")
    return 0


def _queue(client: Client, _words: tuple[str, ...]) -> int:
    entries = output.objects(client.gateways().ask(Request("GET", "queue", "list"))["list"])
    if client.options.json:
        output.print_json(entries)
    else:
        for line in output.queue_lines(entries):
            print(line)
    return 0


_MODES: dict[str, Callable[[Client, tuple[str, ...]], int]] = {
    "images": _images,
    "lookup": _lookup,
    "pull": _pull,
    "pullnb": _pull_without_waiting,
    "login": _login,
    "expire": _expire,
    "autoexpire": _autoexpire,
    "queue": _queue,
}
