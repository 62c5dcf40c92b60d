# SPDX-License-Identifier: BSD-3-Clause
"""Nodes with a network of their own on this machine: network namespaces on one bridge (pyroute2, root)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pyroute2 import IPRoute, NetlinkError, NetNS, netns

from tests.accounts import MARK, User

NETWORK = f"10.{200 + int(MARK[0], 16)}.{int(MARK[1:3], 16)}"  # two checkouts on one machine do not meet
BRIDGE = f"sh{MARK}"
BRIDGE_ADDRESS = f"{NETWORK}.254"


@dataclass(frozen=True)
class VirtualNode:
    name: str  # what other nodes call it
    address: str
    namespace: str

    def inside(self, *command: str, user: User | None = None) -> list[str]:
        """The command as root, or as `user`, in this node's network."""
        identity: list[str] = []
        if user is not None:
            groups = ",".join(str(gid) for gid in (user.gid, *user.groups))
            identity = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", f"--groups={groups}"]
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *identity, *command]

    def run(self, *command: str, user: User | None = None, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.inside(*command, user=user), check=False, capture_output=True, text=True, timeout=120, input=input,
            cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip


def hosts_file(nodes: Sequence[VirtualNode]) -> str:
    """/etc/hosts by which the nodes know each other."""
    return "127.0.0.1 localhost\n" + "".join(f"{node.address} {node.name}\n" for node in nodes)


def _connect(route: IPRoute, node: VirtualNode, index: int, bridge: int) -> None:
    outside = f"{BRIDGE}n{index}"
    netns.create(node.namespace)
    route.link("add", ifname=outside, kind="veth", peer={"ifname": "eth0", "net_ns_fd": node.namespace})
    link = route.link_lookup(ifname=outside)[0]
    route.link("set", index=link, master=bridge, state="up")
    with NetNS(node.namespace) as inside:
        eth0 = inside.link_lookup(ifname="eth0")[0]
        inside.addr("add", index=eth0, address=node.address, prefixlen=24)
        inside.link("set", index=eth0, state="up")
        inside.link("set", index=inside.link_lookup(ifname="lo")[0], state="up")


def _remove(route: IPRoute, nodes: Sequence[VirtualNode]) -> None:
    """With a namespace its end of the pair goes, and so the other one; also what an interrupted run left."""
    for node in nodes:
        with suppress(FileNotFoundError):
            netns.remove(node.namespace)
    for name in (BRIDGE, *(f"{BRIDGE}n{index}" for index in range(len(nodes)))):
        for link in route.link_lookup(ifname=name):
            with suppress(NetlinkError):
                route.link("del", index=link)


@contextmanager
def virtual_nodes(*names: str) -> Iterator[list[VirtualNode]]:
    """Nodes that reach each other and, at BRIDGE_ADDRESS, this machine."""
    nodes = [
        VirtualNode(name, f"{NETWORK}.{index + 1}", f"shifter-{MARK}-{name}") for index, name in enumerate(names)
    ]
    with IPRoute() as route:
        _remove(route, nodes)
        try:
            route.link("add", ifname=BRIDGE, kind="bridge")
            bridge = route.link_lookup(ifname=BRIDGE)[0]
            route.addr("add", index=bridge, address=BRIDGE_ADDRESS, prefixlen=24)
            route.link("set", index=bridge, state="up")
            for index, node in enumerate(nodes):
                _connect(route, node, index, bridge)
            yield nodes
        finally:
            _remove(route, nodes)
