# SPDX-License-Identifier: BSD-3-Clause
"""The polling loop of a pull, with time and gateway in the test's hands."""

from __future__ import annotations

from typing import Any

import pytest

from udiroot.shifterimg.errors import NoGateway, RequestRefused
from udiroot.shifterimg.pull import follow

Answer = Any
STATES = ["MISSING", "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER", "READY"]


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


class Script:
    """Gives the answers in order; the last one again and again. Errors are raised."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self) -> dict[str, Any]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}


def run(*answers: Answer) -> tuple[dict[str, Any], Script, Time, list[str], list[str]]:
    time, script = Time(), Script(*answers)
    shown: list[str] = []
    notes: list[str] = []
    record = follow(script, lambda r: shown.append(r["status"]), notes.append, time.sleep, lambda: time.now)
    return record, script, time, shown, notes


def test_a_first_answer_that_is_final_ends_it() -> None:
    record, script, time, shown, _ = run("READY")
    assert (record["status"], script.asked, time.pauses, shown) == ("READY", 1, [], ["READY"])


def test_it_asks_quickly_at_first_and_twice_a_second_later() -> None:
    _, _, time, shown, _ = run(*STATES)
    assert shown == STATES
    assert time.pauses[0] < 0.05
    assert time.pauses == sorted(time.pauses)
    assert run(*STATES[:-1] * 3, STATES[-1])[2].pauses[-1] == 0.5


@pytest.mark.parametrize("status", ["FAILURE", "EXPIRED", "EXPIRING", "SOMETHING"])
def test_any_other_state_ends_it(status: str) -> None:
    assert run("INIT", status)[0] == {"status": status}


def test_an_import_in_progress_is_waited_for_and_the_legacy_state_is_ready() -> None:
    assert run("HASHING", "SUCCESS")[1].asked == 2


def test_a_gateway_may_be_restarted_in_the_middle() -> None:
    gone = NoGateway("connection refused")
    record, _, _, _, notes = run("PULLING", *[gone] * 30, "PULLING", gone, "READY")
    assert record["status"] == "READY"
    assert notes == ["connection refused; trying again for 60 seconds"] * 2


def test_patience_ends() -> None:
    time, script = Time(), Script("PULLING", NoGateway("connection refused"))
    with pytest.raises(NoGateway):
        follow(script, lambda _r: None, lambda _t: None, time.sleep, lambda: time.now)
    assert 60 <= time.now < 65


@pytest.mark.parametrize("error", [NoGateway("none"), RequestRefused(403, "no")])
def test_a_first_failure_is_final(error: Exception) -> None:
    with pytest.raises(type(error)):
        run(error, "READY")


def test_a_refusal_in_the_middle_is_final() -> None:
    with pytest.raises(RequestRefused):
        run("INIT", RequestRefused(404, "gone"), "READY")
