# SPDX-License-Identifier: BSD-3-Clause
"""The plug-in's host list for setupRoot, through Slurm's own expansion, under the sanitizers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
# A line "nodes<TAB>cpus" in, a line out.
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hosts.h"
int main(void)
{
    static char line[1 << 20];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *next = line, *nodes = strsep(&next, "\t\n"), *cpus = strsep(&next, "\n");
        struct error e;
        char *text = hosts_from_slurm(nodes, strcmp(cpus, "-") == 0 ? NULL : cpus, &e);
        (void)printf("%s%s\n", text != NULL ? "" : "error: ", text != NULL ? text : e.text);
        (void)fflush(stdout);
        free(text);
    }
    return 0;
}
"""
Expand = Callable[[str, str], str]


@pytest.fixture(scope="module")
def expand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Expand]:
    directory = tmp_path_factory.mktemp("hosts")
    (directory / "driver.c").write_text(DRIVER)
    sources = [directory / "driver.c", ROOT / "slurm_spank/hosts.c", ROOT / "udiroot/src/base/error.c"]
    subprocess.run(
        ["gcc", "-g", "-std=c11", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
         f"-I{ROOT}/slurm_spank", f"-I{ROOT}/udiroot/src", "-o", directory / "driver", *sources, "-lslurm"],
        check=True,
    )  # fmt: skip
    with subprocess.Popen(
        [directory / "driver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None

        def run(nodes: str, cpus: str) -> str:
            print(f"{nodes}\t{cpus}", file=driver.stdin)
            assert driver.stdout is not None
            return driver.stdout.readline().removesuffix("\n")

        yield run
        driver.stdin.close()
        assert driver.wait() == 0  # the leak checker's word, too


@pytest.mark.parametrize(
    ("nodes", "cpus", "expected"),
    [
        ("n1", "2", "n1/2"),
        ("n[1-3]", "4(x2),2", "n1/4 n2/4 n3/2"),
        ("n[08-10,12],gpu1", "1,128(x4)", "n08/1 n09/128 n10/128 n12/128 gpu1/128"),
        ("z9,a1", "1,2", "z9/1 a1/2"),  # allocation order, not sorted
        ("n[1-2]", "-", "n1/1 n2/1"),
        ("n[1-2]", "65536(x2)", "n1/65536 n2/65536"),
    ],
)
def test_nodes_get_their_own_counts(expand: Expand, nodes: str, cpus: str, expected: str) -> None:
    assert expand(nodes, cpus) == expected


@pytest.mark.parametrize(
    "cpus", ["", "2", "2(x1)", "0(x2)", "-1(x2)", "x", "2(x", "2(x2", "2(y2)", "2(x0)", "2;2", "65537(x2)", "2,", ",2",
             " ", "2(x9999999)", "99999999999999999999999(x2)", "2(x3)", "1,2,3"],
)  # fmt: skip
def test_counts_that_do_not_fit_are_an_error(expand: Expand, cpus: str) -> None:
    assert expand("n[1-2]", cpus).startswith("error: the CPU counts")


@given(counts=st.lists(st.integers(1, 256), min_size=1, max_size=50))
def test_any_counts_come_back(expand: Expand, counts: list[int]) -> None:
    groups = [(value, len(list(same))) for value, same in groupby(counts)]
    cpus = ",".join(f"{value}(x{times})" if times > 1 else str(value) for value, times in groups)
    expected = " ".join(f"n{number}/{count}" for number, count in enumerate(counts, 1))
    assert expand(f"n[1-{len(counts)}]", cpus) == expected


@given(cpus=st.text("0123456789(x),", max_size=12))
def test_no_text_of_counts_breaks_it(expand: Expand, cpus: str) -> None:
    assert re.fullmatch(r"n1/\d+ n2/\d+ n3/\d+|error: the CPU counts .*", expand("n[1-3]", cpus))
