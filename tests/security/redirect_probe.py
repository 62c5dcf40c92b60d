# SPDX-License-Identifier: BSD-3-Clause
"""Runs in an empty network namespace: a registry at a routable address redirects to a listener on loopback.

Prints what the listener saw as JSON. Not a test itself; tests/security/test_registry_redirects.py starts it.
"""

from __future__ import annotations

import json
import subprocess
import sys

from shifter_imagegw.errors import RegistryError
from shifter_imagegw.registry.client import HttpSettings, RegistryClient
from shifter_imagegw.registry.location import Location
from shifter_imagegw.registry.manifest import OciPlatform
from tests.registryserver import digest_of
from tests.scriptedserver import Request, fake_image, scripted_server, serve_image

_ADDRESS = "198.51.100.1"


def main() -> None:
    """Set the namespace up and pull."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{_ADDRESS}/32", "dev", "lo"], check=True)
    image = fake_image()
    with scripted_server(lambda request: request.reply(200, image.config)) as inside:

        def registry_script(request: Request) -> None:
            if request.path.endswith(digest_of(image.config)):
                request.reply(307, b"", {"Location": f"{inside.url}/secret"})
            else:
                serve_image(image)(request)

        with scripted_server(registry_script, address=_ADDRESS) as registry:
            client = RegistryClient(Location("reg", registry.url), http=HttpSettings(retries=0))
            error = "none"
            try:
                client.resolve("proj/app", "v1", OciPlatform())
            except RegistryError as refusal:
                error = "loopback" if "loopback address" in str(refusal) else str(refusal)
            seen = {"loopback_requests": inside.paths, "error": error, "registry_requests": len(registry.requests)}
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
