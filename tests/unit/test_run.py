# SPDX-License-Identifier: BSD-3-Clause
"""How the plug-in and the hooks run a program, under the sanitizers and in the odd places that Slurm calls it from."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# driver SECONDS INPUT PROGRAM [ARGUMENT …]: what came out, how much of it, and that no descriptor was left open.
DRIVER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "as_root/run.h"
static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}
int main(int argc, char **argv)
{
    (void)argc;
    struct run run = {.arguments = (const char *const *)argv + 3, .seconds = (unsigned)atoi(argv[1]),
                      .input = *argv[2] != '\0' ? argv[2] : NULL};
    struct error e = {.text = ""};
    int before = open_descriptors(), result = run_program(&run, &e), after = open_descriptors();
    FILE *out = fopen(getenv("RESULT"), "w");
    if (out == NULL)
        return 2;
    (void)fprintf(out, "%d|%s|%zu %zu|%d|%s", result, e.text, run.output_length, run.errors_length, after - before,
                  run.output);
    return fclose(out);
}
"""
Run = Callable[..., list[str]]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    (directory / "driver.c").write_text(DRIVER)
    sources = [directory / "driver.c", ROOT / "udiroot/src/as_root/run.c"]
    names = ("base/error.c", "base/text.c", "as_root/kernel.c", "as_root/process.c")
    sources += [ROOT / "udiroot/src" / name for name in names]
    subprocess.run(
        ["gcc", "-g", "-std=c11", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
         f"-I{ROOT}/udiroot/src", "-o", directory / "driver", *sources],
        check=True,
    )  # fmt: skip
    return directory / "driver"


@pytest.fixture
def run(driver: Path, tmp_path: Path) -> Run:
    def call(*command: str, seconds: int = 60, text: str = "", wrap: Sequence[str] = (), **options: Any) -> list[str]:
        """Result, error, lengths, descriptors left, output."""
        result = tmp_path / "result"
        result.unlink(missing_ok=True)
        done = subprocess.run(
            [*wrap, str(driver), str(seconds), text, *command], check=False, capture_output=True, text=True,
            env={"PATH": "/usr/bin:/bin", "RESULT": str(result), "SECRET": "x"}, **options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return result.read_text().split("|", 4)

    return call


def test_output_and_environment(run: Run) -> None:
    assert run("/usr/bin/env") == ["0", "", "50 0", "0", "PATH=/usr/bin:/usr/sbin:/bin:/sbin\nLC_ALL=C.UTF-8\n"]


def test_standard_input_is_the_text_or_nothing(run: Run) -> None:
    assert run("/bin/cat", text="n1/2 n2/2")[4] == "n1/2 n2/2"
    assert run("/bin/cat")[4] == ""


def test_it_works_where_the_standard_descriptors_are_closed(run: Run) -> None:
    """Slurm calls prologs without descriptor 0."""
    script = "exec \"$@\" <&- >&- 2>&-"
    result = run("/bin/sh", "-c", "cat; echo out; echo err >&2", text="in ", wrap=["/bin/sh", "-c", script, "sh"])
    assert result == ["0", "", "7 4", "0", "in out\n"]


def test_the_program_gets_no_other_descriptor_and_no_signal_setting(run: Run) -> None:
    script = "trap '' INT QUIT PIPE CHLD USR1; exec 9</dev/null; exec \"$@\""
    look = "ls /proc/self/fd; grep Sig /proc/self/status"
    output = run("/bin/sh", "-c", look, wrap=["/bin/sh", "-c", script, "sh"])[4]
    assert output.split()[:4] == ["0", "1", "2", "3"]  # 3: what ls itself opened
    states = dict(line.split(":\t") for line in output.splitlines()[4:])
    assert states["SigIgn"] == states["SigBlk"] == "0" * 16


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 3", "/bin/sh exited with status 3 and did not say why"),
        ("kill -KILL $$", "/bin/sh was killed by signal 9"),
        ("echo 'tool: no' >&2; exit 1", "tool: no"),
        ("printf '\\n one\\ntwo\\n\\n' >&2; exit 1", "one two"),
        ("printf 'a\\033[31m\\177' >&2; exit 1", "a?[31m?"),
        ("head -c 100000 /dev/zero >&2; exit 1", "/bin/sh exited with status 1 and did not say why"),
    ],
)
def test_what_failed_is_told_in_one_line(run: Run, script: str, error: str) -> None:
    assert run("/bin/sh", "-c", script)[:2] == ["-1", error]


def test_a_program_that_cannot_be_started(run: Run) -> None:
    assert run("/nowhere/tool")[:2] == ["-1", "cannot execute /nowhere/tool: No such file or directory"]
    assert run("/etc/passwd")[:2] == ["-1", "cannot execute /etc/passwd: Permission denied"]
    limit = (12, 12)  # descriptors
    result = run("/bin/true", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
    assert result[0] == "0"


@pytest.mark.parametrize("order", ["out err", "err out"])
def test_any_amount_on_both_streams_is_read(run: Run, order: str) -> None:
    """W-12: neither stream is waited for while the other one is full."""
    parts = {"out": "head -c 3000000 /dev/zero | tr '\\0' o", "err": "head -c 3000000 /dev/zero | tr '\\0' e >&2"}
    result = run("/bin/sh", "-c", "; ".join(parts[name] for name in order.split()))
    assert result[:4] == ["0", "", "3000000 3000000", "0"]
    assert result[4] == "o" * 1024


@pytest.mark.parametrize(
    "script",
    ["exec sleep 1000", "sleep 1000 & exit 0", "trap '' TERM INT HUP; sleep 1000; exit 0", "exec >&- 2>&-; sleep 1000"],
)
def test_time_is_limited_for_the_program_and_what_it_started(run: Run, tmp_path: Path, script: str) -> None:
    result = run("/bin/sh", "-c", f"echo $$ > {tmp_path}/group; {script}", seconds=1)
    assert result[:2] == ["-1", "/bin/sh did not end within 1 seconds and was killed"]
    await_end_of_group((tmp_path / "group").read_text().strip())


def test_it_ends_with_the_one_who_waits_for_it(driver: Path, tmp_path: Path) -> None:
    command = [str(driver), "60", "", "/bin/sh", "-c", f"echo $$ > {tmp_path}/group; exec sleep 1000"]
    with subprocess.Popen(command, env={"RESULT": str(tmp_path / "result")}) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "group").exists() or not (tmp_path / "group").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    await_end_of_group((tmp_path / "group").read_text().strip())


def await_end_of_group(group: str) -> None:
    deadline = time.monotonic() + 30
    while any(fields[0] != "Z" and fields[2] == group for fields in process_table()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def process_table() -> Iterator[list[str]]:
    """State, parent, group … of every process (proc(5), stat, from the third field on)."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield (process / "stat").read_text().rsplit(")", 1)[1].split()
