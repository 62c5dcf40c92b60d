# SPDX-License-Identifier: BSD-3-Clause
"""What docs/security.md says of the directories of udiroot/src: base/, as_root/ and shifter.c are all that runs as
root, and as_user/ cannot do anything that needs root's rights."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "udiroot/src"
MOST_LINES = 3500
# What as_user/ calls of the C library: texts, memory, accounts, reading files.
PLAIN = frozenset({
    "_GLOBAL_OFFSET_TABLE_", "__errno_location", "close", "dprintf", "fclose", "fgetpwent", "fopen", "free",
    "fstat", "fstatfs", "getopt_long", "getpwnam", "getpwuid", "memchr", "memcmp", "memcpy", "memset", "open",
    "optarg", "opterr", "optind", "optopt", "qsort", "stpcpy", "strcasecmp", "strchr", "strcmp", "strcspn",
    "strlen", "strncmp", "strpbrk", "strrchr", "strsep", "strspn", "strstr", "strtoul",
})  # fmt: skip
# Hooks of users run after root's rights are gone.
AFTER_THE_DROP = {
    "userhooks": {"_exit", "dup2", "execve", "fork", "waitpid", "process_change_directory", "process_restore"},
}
COMPILE = ["gcc", "-std=c11", "-D_GNU_SOURCE", f"-I{SOURCES}", '-DPREFIX=""', '-DSYSCONFDIR=""', '-DSTATEDIR=""']


def lines_of_code(path: Path) -> int:
    """Without blank lines and comments, as the preprocessor sees them."""
    done = subprocess.run(
        ["gcc", "-fpreprocessed", "-dD", "-E", "-P", "-x", "c", str(path)], check=True, capture_output=True, text=True
    )
    return sum(1 for line in done.stdout.splitlines() if line.strip())


def symbols(path: Path, option: str) -> set[str]:
    """Of an object file, those that `nm OPTION` lists."""
    done = subprocess.run(["nm", option, str(path)], check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in done.stdout.splitlines()}


def test_what_runs_as_root_can_be_read_in_an_afternoon() -> None:
    files = [SOURCES / "shifter.c", *SOURCES.glob("base/*.[ch]"), *SOURCES.glob("as_root/*.[ch]")]
    assert sum(map(lines_of_code, files)) <= MOST_LINES


def test_what_reads_the_users_words_calls_nothing_but_to_read(tmp_path: Path) -> None:
    own: set[str] = set()
    needed: dict[str, set[str]] = {}
    for source in [*SOURCES.glob("base/*.c"), *SOURCES.glob("as_user/*.c")]:
        compiled = tmp_path / f"{source.stem}.o"
        subprocess.run([*COMPILE, "-c", "-o", str(compiled), str(source)], check=True)
        own |= symbols(compiled, "--defined-only")
        if source.parent.name == "as_user":
            needed[source.stem] = symbols(compiled, "--undefined-only")
    for name, wanted in needed.items():
        assert wanted - own - PLAIN - AFTER_THE_DROP.get(name, set()) == set(), name


@pytest.mark.parametrize("room", ["base", "as_user", "as_root"])
def test_the_setuid_program_has_no_part_of_node(room: str) -> None:
    for path in SOURCES.glob(f"{room}/*.[ch]"):
        assert '#include "node/' not in path.read_text(), path
    assert '#include "node/' not in (SOURCES / "shifter.c").read_text()
