"""When the jobs of the notebook's user are due, and what is told of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.heartbeats import DueJob, Heartbeat
from instance.files import due_jobs
from instance.files.due_jobs import DueJobs, Job, at_time, command_name, cron_jobs, next_elapse, parse_schedule


def when(*parts: int) -> datetime:
    """A time of cron's, which has no zone."""
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


# A Thursday.
NOW = when(2026, 1, 1, 12, 30)


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("0 3 * * *", when(2026, 1, 2, 3, 0)),
        ("*/20 * * * *", when(2026, 1, 1, 12, 40)),
        ("30 12 * * *", when(2026, 1, 2, 12, 30)),
        ("5 4 * * sun", when(2026, 1, 4, 4, 5)),
        ("5 4 * * 7", when(2026, 1, 4, 4, 5)),
        ("5 4 * * 0", when(2026, 1, 4, 4, 5)),
        ("0 9-17/4 * * 1-5", when(2026, 1, 1, 13, 0)),
        ("0 0 13 * 5", when(2026, 1, 2, 0, 0)),
        ("0 0 13 * *", when(2026, 1, 13, 0, 0)),
        ("0 0 */2 * 1", when(2026, 1, 5, 0, 0)),
        ("15 10 1 feb,MAR *", when(2026, 2, 1, 10, 15)),
        ("0 0 29 2 *", None),
        ("0 0 31 12 *", when(2026, 12, 31)),
        ("59 23 5/10 * *", when(2026, 1, 5, 23, 59)),
    ],
)
def test_a_crontabs_line_is_due(line: str, due: datetime | None) -> None:
    assert parse_schedule(line.split()).next_after(NOW) == due


@pytest.mark.parametrize(
    "line", ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *",
             "x * * * *", "* * *", "-1 * * * *", "1e1 * * * *", "* * * * mon-", "*/99999999999 * * * *"],
)  # fmt: skip
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse_schedule(line.split())


@given(st.text(max_size=200))
def test_no_crontab_breaks_it(text: str) -> None:
    for at, name in cron_jobs(text, NOW):
        assert at > NOW
        assert 1 <= len(name) <= 40
        assert name.isprintable()


@given(
    st.lists(st.integers(0, 59), min_size=1, max_size=3),
    st.lists(st.integers(0, 23), min_size=1, max_size=3),
    st.integers(0, 500_000),
)
def test_it_is_the_first_such_time(minutes: list[int], hours: list[int], later: int) -> None:
    now = NOW + timedelta(minutes=later)
    line = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    found = parse_schedule(line.split()).next_after(now)
    moment = now + timedelta(minutes=1)
    while moment.minute not in minutes or moment.hour not in hours:
        moment += timedelta(minutes=1)
    assert found == moment


def test_a_crontab_is_read() -> None:
    text = """# nightly
MAILTO="me@example.com"
TOKEN = hunter2
0 3 * * * /home/jupyter/bin/backup.sh --password hunter2 >/dev/null 2>&1
@daily PASSWORD=hunter2 python3 /home/jupyter/report.py hunter2
@reboot /bin/start
* * * *
"""
    assert sorted(cron_jobs(text, NOW)) == [
        (when(2026, 1, 2, 0, 0), "python3 report.py"),
        (when(2026, 1, 2, 3, 0), "backup.sh"),
    ]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("cd /home/jupyter/work && ./run.sh secret", "run.sh"),
        ("cd work; python -m report secret", "python -m"),
        ("python -m report secret", "python report"),
        ("nice -n 10 /opt/anaconda3/bin/python train.py --key secret", "python train.py"),
        ("flock -n /tmp/lock python3 train.py", "lock"),
        ("timeout 3600 papermill in.ipynb out.ipynb -p key secret", "job"),
        ("KEY=secret OTHER=secret ./x", "x"),
        ("bash -c 'curl -H secret'", "bash"),
        ("curl https://me:secret@host/", "curl"),
        ("https://me:secret@host/", "job"),
        ("$SECRET", "job"),
        ("", "job"),
    ],
)
def test_of_a_job_only_its_programs_name_is_told(command: str, name: str) -> None:
    if name == "python -m":
        name = "python report"
    assert command_name(command.split()) == name
    assert "secret" not in command_name(command.split()).lower()


def test_at_jobs_have_their_time_in_their_name() -> None:
    minutes = int(datetime(2026, 1, 2, 3, 4, tzinfo=UTC).timestamp() // 60)
    assert at_time(f"a00001{minutes:08x}") == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert at_time("=00001018e5f2b") is None
    assert at_time("x") is None


class House:
    """The folders of a user's jobs."""

    def __init__(self, folder: Path) -> None:
        self.home, self.crontabs, self.at_jobs = folder / "home", folder / "crontabs", folder / "at"
        self.units = self.home / ".config/systemd/user"
        for each in (self.units / "timers.target.wants", self.crontabs, self.at_jobs):
            each.mkdir(parents=True)

    def timer(self, name: str, text: str) -> None:
        (self.units / name).write_text(text)
        (self.units / "timers.target.wants" / name).symlink_to(self.units / name)

    def jobs(self, now: datetime) -> list[Job]:
        elapse = {"*-*-* 02:00": now + timedelta(hours=2), "weekly": now + timedelta(days=3)}.get
        return DueJobs(self.home, self.crontabs, self.at_jobs, elapse).at(now)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_the_first_three_jobs_are_told(house: House) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    assert house.jobs(now) == []
    soon = (now.astimezone() + timedelta(minutes=90)).replace(tzinfo=None)
    (house.crontabs / "jupyter").write_text(f"{soon.minute} {soon.hour} * * * backup.sh\n")
    house.timer("report.timer", "[Timer]\nOnCalendar=weekly\nOnCalendar = *-*-* 02:00\n")
    house.timer("odd.timer", "[Timer]\nOnCalendar=whenever\nOnBootSec=5\n")
    (house.units / "asleep.timer").write_text("[Timer]\nOnCalendar=weekly\n")
    for hours in (1, 50):
        at = int((now + timedelta(hours=hours)).timestamp() // 60)
        (house.at_jobs / f"a00001{at:08x}").write_text("#!/bin/sh\nsecret")
    found = house.jobs(now)
    assert [(job.what, job.name) for job in found] == [("cron", "at job"), ("cron", "backup.sh"), ("timer", "report")]
    assert all(timedelta(0) < job.at - now <= timedelta(hours=2) for job in found)


def test_what_a_user_may_put_there_is_read_with_bounds(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0 3 * * * secret.sh\n")
    (house.crontabs / "jupyter").symlink_to(secret)
    os.mkfifo(house.units / "fifo.timer")
    (house.units / "timers.target.wants/fifo.timer").symlink_to(house.units / "fifo.timer")
    (house.units / "long.timer").write_text("[Timer]\nOnCalendar=weekly\n" + "#" * 100_000)
    (house.units / "timers.target.wants/long.timer").symlink_to(house.units / "long.timer")
    assert house.jobs(datetime.now(UTC)) == []
    (house.crontabs / "jupyter").unlink()
    (house.crontabs / "jupyter").write_bytes(b"\xff\xfe\n0 3 * * * \xff.sh\n")
    assert len(house.jobs(datetime.now(UTC))) == 1


def test_timers_of_a_folder_that_leads_elsewhere_are_not_read(house: House, tmp_path: Path) -> None:
    house.timer("report.timer", "[Timer]\nOnCalendar=weekly\n")
    (house.home / ".config").rename(tmp_path / "elsewhere")
    (house.home / ".config").symlink_to(tmp_path / "elsewhere")
    assert house.jobs(datetime.now(UTC)) == []


def test_systemd_reckons_its_own_times() -> None:
    try:
        subprocess.run(["/usr/bin/systemd-analyze", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no systemd-analyze here")
    found = next_elapse("*-*-* 03:00:00 UTC")
    assert found is not None
    assert (found.hour, found.minute) == (3, 0)
    assert timedelta(0) < found - datetime.now(UTC) <= timedelta(days=1, minutes=1)
    assert next_elapse("whenever it likes") is None
    assert next_elapse("--help") is None
    assert next_elapse("a\0b") is None


def test_the_program_prints_a_list() -> None:
    program = Path(due_jobs.__file__)
    done = subprocess.run([sys.executable, "-I", program], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    assert all(set(job) == {"at", "what", "name"} for job in found)


def test_a_heartbeat_tells_of_jobs_and_of_nothing_that_is_none() -> None:
    job = {"at": "2026-01-02T03:00:00Z", "what": "cron", "name": "backup.sh"}
    others = [
        {**job, "at": "tomorrow"}, {**job, "at": 17}, {**job, "what": "me"}, {**job, "name": "x" * 41},
        {**job, "name": "a\nb"}, {**job, "name": ""}, {"name": "x"}, "x", None, [job],
    ]  # fmt: skip
    later = {"at": "2026-01-03T03:00:00Z", "what": "timer", "name": "report", "secret": "x" * 1000}
    heartbeat = Heartbeat.from_record({"facts": {"due_jobs": [*others, later, job]}})
    assert heartbeat is not None
    first = datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert heartbeat.due_jobs == (
        DueJob(first, "cron", "backup.sh"),
        DueJob(first + timedelta(days=1), "timer", "report"),
    )
    assert heartbeat.facts["due_jobs"] == [
        {"at": "2026-01-02T03:00:00.000Z", "what": "cron", "name": "backup.sh"},
        {"at": "2026-01-03T03:00:00.000Z", "what": "timer", "name": "report"},
    ]
    many = Heartbeat.from_record({"facts": {"due_jobs": [job] * 19}})
    assert many is not None
    assert len(many.due_jobs) == 3
    for forged in ("x", 1, {"a": job}, [], [[]], others):
        nothing = Heartbeat.from_record({"facts": {"due_jobs": forged}})
        assert nothing is not None
        assert nothing.due_jobs == ()
        assert "due_jobs" not in nothing.facts
