# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong in the client, drawn as a tree. The gateway's tree is not used: its package is not needed here.

::

    ClientError                  it did not work                                        exit status 1
    ├── WrongUsage               the command line asks for something that cannot be     exit status 2
    ├── ConfigurationUnusable    udiRoot.conf is missing, unsafe, wrong or incomplete
    ├── CredentialFailed         munge made or accepted no credential
    ├── LoginsUnusable           ~/.udiRoot/.cred cannot be read or written safely
    ├── ExchangeFailed           one gateway gave no usable answer
    ├── NoGateway                none of the gateways gave one
    └── RequestRefused           a gateway understood the request and said no
"""

from __future__ import annotations


class ClientError(Exception):
    """Root of all errors the client raises on purpose; the text is for the user."""

    exit_status = 1


class WrongUsage(ClientError):
    """An argument or option that can never work."""

    exit_status = 2


class ConfigurationUnusable(ClientError):
    """udiRoot.conf cannot be used."""


class CredentialFailed(ClientError):
    """libmunge reported an error."""


class LoginsUnusable(ClientError):
    """The file of stored logins, or its directory, is not what it must be."""


class ExchangeFailed(ClientError):
    """No connection, a time-out, or an answer that is none."""


class NoGateway(ClientError):
    """Every configured gateway failed."""


class RequestRefused(ClientError):
    """A final answer. ``status`` is the HTTP status: 400, 403, 404 or 501."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)
