"""When a notebook stops by itself: stories, and the laws that hold for every day."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from chalicelib import times
from chalicelib.aws.items import to_attribute
from chalicelib.heartbeats import ACTIVITY, SIGNALS, Heartbeat
from chalicelib.idleness import (
    Decision,
    GivenWarning,
    Policy,
    Run,
    Seen,
    decide,
    observed,
    shown,
)
from chalicelib.model import Notebook, SeenBeat, Warned

START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
POLICY = Policy()
BOOT = "b" * 32


def at(clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return START.replace(hour=int(hours), minute=int(minutes))


def a_run(**changes: Any) -> Run:
    return replace(Run("ready", START, 60, seen=Seen(BOOT, 1, START), ready_at=START), **changes)


def beat(clock: str | datetime, number: int = 100, boot: str = BOOT, **ages: float) -> Heartbeat:
    """A heartbeat written then; `kernel=5`: a kernel was busy 5 minutes before."""
    now = at(clock) if isinstance(clock, str) else clock
    return Heartbeat(
        boot_id=boot,
        beat=number,
        at=now,
        uptime=now - START + timedelta(minutes=2),
        ages={name: timedelta(minutes=age) for name, age in ages.items()},
        facts={
            "kernels": {"busy": 0, "waiting": 0, "idle": 1},
            "terminals": {"foreground": 0, "waiting": 0, "quiet": 1},
        },
    )


def warned(clock: str, stops: str, code: str = "idle", boot: str | None = BOOT) -> GivenWarning:
    return GivenWarning(at(clock), at(stops), code, boot)


class TestStories:
    def test_a_busy_kernel_keeps_it(self) -> None:
        decision = decide(a_run(), beat("14:00", kernel=0, input=360), POLICY, at("14:01"))
        assert (decision.action, decision.code, decision.reason) == ("keep", "active", "a kernel is busy")
        assert decision.last_active_at == at("14:00")
        assert decision.stops_at == at("15:00")

    def test_what_runs_is_named_where_the_monitor_knows_it(self) -> None:
        heartbeat = replace(beat("14:00", cpu=0), facts={"busiest": ["python3", "ffmpeg"]})
        assert decide(a_run(), heartbeat, POLICY, at("14:01")).reason == "a process of yours uses CPU (python3, ffmpeg)"

    def test_what_was_just_used_is_kept(self) -> None:
        decision = decide(a_run(), beat("14:00", input=30, kernel=45), POLICY, at("14:01"))
        assert (decision.action, decision.code) == ("keep", "recently_active")
        assert decision.reason == "somebody used it until 13:30 UTC"
        assert (decision.last_active_at, decision.last_activity) == (at("13:30"), "somebody used it")

    def test_ten_minutes_before_the_end_the_owner_is_warned(self) -> None:
        heartbeat = beat("14:00", input=50, kernel=55)
        decision = decide(a_run(), heartbeat, POLICY, at("14:01"))
        assert (decision.action, decision.code, decision.stops_at) == ("warn", "idle", at("14:11"))
        assert decision.reason == (
            "idle since 13:10 UTC: no input since 13:10 UTC, kernel idle, no command runs in a terminal, "
            "no process of yours used CPU, disk or network"
        )
        assert decision.warned == GivenWarning(at("14:01"), at("14:11"), "idle", BOOT)
        assert decision.due_at == at("14:11")

    def test_after_the_warning_it_waits_until_the_time_that_was_promised(self) -> None:
        run = a_run(warned=warned("14:01", "14:11"))
        early = decide(run, beat("14:08", 102, input=58, kernel=63), POLICY, at("14:09"))
        assert (early.action, early.code, early.due_at) == ("keep", "idle", at("14:11"))
        late = decide(run, beat("14:12", 103, input=62, kernel=67), POLICY, at("14:13"))
        assert (late.action, late.code, late.stops_at) == ("stop", "idle", at("14:13"))

    def test_a_person_who_comes_back_after_the_warning_is_warned_again_before_a_later_stop(self) -> None:
        run = a_run(warned=warned("14:01", "14:11"))
        assert decide(run, beat("14:12", 103, input=2), POLICY, at("14:13")).action == "keep"
        again = decide(run, beat("15:10", 110, input=60), POLICY, at("15:11"))
        assert (again.action, again.stops_at) == ("warn", at("15:21"))

    def test_use_after_a_warning_of_a_short_limit_needs_another_though_the_stop_moves_by_minutes(self) -> None:
        run = a_run(idle_minutes=10, warned=warned("14:00", "14:05"))
        assert decide(run, beat("14:12", 103, input=10), POLICY, at("14:13")).action == "warn"
        assert decide(run, beat("14:12", 103, input=17), POLICY, at("14:13")).action == "stop"

    def test_a_short_extension_needs_another_warning_too(self) -> None:
        run = a_run(hold_until=at("14:20"), warned=warned("14:01", "14:11"))
        assert decide(run, beat("14:20", 105, input=70), POLICY, at("14:21")).action == "warn"

    def test_a_page_opened_after_the_warning_puts_it_off_and_then_it_is_warned_of_again(self) -> None:
        run = a_run(warned=warned("14:01", "14:11"))
        assert decide(run, beat("14:20", 105, input=70, browser=0), POLICY, at("14:21")).code == "reading"
        assert decide(run, beat("15:00", 115, input=110, browser=29), POLICY, at("15:01")).action == "warn"

    def test_a_heartbeat_was_written_after_the_one_before_it_was_seen_whatever_its_clock_says(self) -> None:
        run = a_run(seen=Seen(BOOT, 99, at("13:58")))
        slow = replace(beat("13:52", input=30), at=at("13:52"))
        assert decide(run, slow, POLICY, at("14:01")).last_active_at == at("13:28")

    def test_a_warning_of_another_boot_does_not_count(self) -> None:
        run = a_run(warned=warned("14:01", "14:11", boot="a" * 32))
        assert decide(run, beat("14:30", input=90), POLICY, at("14:31")).action == "warn"

    def test_a_reboot_is_no_idleness(self) -> None:
        heartbeat = replace(beat("14:00"), uptime=timedelta(minutes=5))
        decision = decide(a_run(), heartbeat, POLICY, at("14:01"))
        assert (decision.action, decision.code, decision.stops_at) == ("keep", "grace", at("14:55"))

    def test_somebody_who_reads_has_twice_the_patience(self) -> None:
        heartbeat = beat("14:00", input=75, browser=0)
        decision = decide(a_run(), heartbeat, POLICY, at("14:01"))
        assert (decision.action, decision.code) == ("keep", "reading")
        assert decision.reason == (
            "the page is open in a visible window; idle since 12:45 UTC, patience until 14:30 UTC"
        )
        run = a_run(warned=warned("14:36", "14:46"))
        assert decide(run, beat("14:48", 104, input=123, browser=0), POLICY, at("14:49")).action == "stop"

    def test_a_page_that_was_closed_counts_half_an_hour(self) -> None:
        assert decide(a_run(), beat("14:00", input=75, browser=10), POLICY, at("14:01")).code == "reading"
        assert decide(a_run(), beat("14:00", input=85, browser=25), POLICY, at("14:01")).action == "warn"

    def test_a_page_alone_is_no_use(self) -> None:
        decision = decide(a_run(), beat("14:00", input=115, browser=0), POLICY, at("14:01"))
        assert (decision.action, decision.code) == ("warn", "idle")
        assert decision.last_active_at == at("12:05")

    def test_a_short_limit_gives_notice_of_its_half_and_patience_of_half_an_hour(self) -> None:
        run = a_run(idle_minutes=10)
        assert decide(run, beat("14:00", input=5), POLICY, at("14:00")).stops_at == at("14:05")
        assert decide(run, beat("14:00", input=5, browser=0), POLICY, at("14:01")).code == "recently_active"

    def test_after_a_start_nobody_is_hurried(self) -> None:
        run = a_run(idle_minutes=5, run_started_at=at("13:55"), ready_at=at("13:57"), seen=None)
        decision = decide(run, replace(beat("14:00"), uptime=timedelta(minutes=4)), POLICY, at("14:01"))
        assert (decision.action, decision.code, decision.stops_at) == ("keep", "grace", at("14:10"))
        assert decision.reason == (
            "it has been running since 13:57 UTC and nobody has used it yet; patience until 14:10 UTC"
        )

    def test_an_extension_holds_it_and_a_warning_precedes_its_end(self) -> None:
        run = a_run(hold_until=at("16:00"), warned=warned("14:01", "14:11"))
        decision = decide(run, beat("14:12", 103, input=62), POLICY, at("14:13"))
        assert (decision.action, decision.code, decision.stops_at) == ("keep", "held", at("16:00"))
        assert decision.reason == "you asked to keep it until 16:00 UTC; idle since 13:10 UTC"
        again = decide(run, beat("15:50", 120, input=160), POLICY, at("15:51"))
        assert (again.action, again.stops_at) == ("warn", at("16:01"))
        run = replace(run, warned=again.warned)
        assert decide(run, beat("16:00", 122, input=170), POLICY, at("16:02")).action == "stop"

    def test_the_hard_limit_ends_a_busy_kernel_and_is_told_an_hour_before(self) -> None:
        run = a_run(max_hours=6)
        near = decide(run, beat("13:00", kernel=0), POLICY, at("13:01"))
        assert (near.action, near.code) == ("warn", "limit")
        assert near.warned == GivenWarning(at("13:01"), at("14:00"), "limit", BOOT)
        assert near.reason == (
            "it has been running since 08:00 UTC, and the limit of 6 h was set when it was requested: it ends 14:00 UTC"
        )
        run = replace(run, warned=near.warned)
        assert decide(run, beat("13:30", 101, kernel=0), POLICY, at("13:31")).action == "keep"
        assert decide(run, beat("13:59", 102, kernel=0), POLICY, at("14:00")).action == "stop"
        assert decide(run, None, POLICY, at("14:00")).code == "limit"

    def test_an_extension_moves_the_hard_limit_too_and_that_is_told_again(self) -> None:
        run = a_run(max_hours=6, hold_until=at("16:00"), warned=warned("13:01", "14:00", "limit"))
        assert decide(run, beat("14:00", kernel=0), POLICY, at("14:01")).action == "keep"
        near = decide(run, beat("15:00", kernel=0), POLICY, at("15:01"))
        assert (near.action, near.code, near.stops_at) == ("warn", "limit", at("16:00"))

    def test_idleness_and_the_hard_limit_do_not_take_turns_at_warning(self) -> None:
        run = a_run(max_hours=6)
        said = []
        for minute in range(0, 60, 5):
            now = at("13:00") + timedelta(minutes=minute)
            decision = decide(run, beat(now, 200 + minute, input=40 + minute), POLICY, now)
            if decision.warned:
                said.append((decision.code, decision.stops_at))
                run = replace(run, warned=decision.warned)
            if decision.action == "stop":
                break
        assert said == [("limit", at("13:20")), ("idle", at("13:20"))]
        assert now == at("13:20")

    def test_silence_is_probed_then_warned_of_and_ends_after_four_hours(self) -> None:
        run = a_run(seen=Seen(BOOT, 100, at("14:00")))
        heartbeat = beat("14:00", kernel=0)
        assert decide(run, heartbeat, POLICY, at("14:14")).action == "keep"
        assert decide(run, heartbeat, POLICY, at("14:15")).action == "probe"
        warning = decide(run, heartbeat, POLICY, at("15:00"))
        assert (warning.action, warning.code, warning.stops_at) == ("warn", "silent", at("18:00"))
        assert warning.reason == (
            "no heartbeat since 14:00 UTC: whether it is in use is unknown, and unknown is not idle "
            "(the last thing known: a kernel was busy)"
        )
        run = replace(run, warned=warning.warned)
        assert decide(run, heartbeat, POLICY, at("17:59")).action == "probe"
        assert decide(run, heartbeat, POLICY, at("18:00")).action == "stop"

    def test_no_row_at_all_is_silence_since_the_start(self) -> None:
        run = a_run(seen=None)
        assert decide(run, None, POLICY, at("08:10")).code == "grace"
        assert decide(run, None, POLICY, at("08:15")).action == "probe"
        assert decide(run, None, POLICY, at("09:00")).stops_at == at("12:00")

    def test_the_row_of_an_earlier_run_is_no_heartbeat(self) -> None:
        run = a_run(run_started_at=at("12:00"), seen=Seen("a" * 32, 7, at("09:00")), ready_at=at("08:10"))
        old = beat("09:00", 7, "a" * 32, input=120)
        assert decide(run, old, POLICY, at("12:05")).code == "grace"
        assert decide(run, old, POLICY, at("12:20")).action == "probe"

    def test_a_first_look_after_a_day_without_sweeps_gives_an_hour_not_ten_minutes(self) -> None:
        decision = decide(a_run(), None, POLICY, START + timedelta(days=1))
        assert (decision.action, decision.stops_at) == ("warn", START + timedelta(days=1, hours=1))

    def test_an_old_heartbeat_stops_nothing(self) -> None:
        run = a_run(warned=warned("14:01", "14:11"), seen=Seen(BOOT, 103, at("14:12")))
        heartbeat = beat("14:12", 103, input=62)
        assert decide(run, heartbeat, POLICY, at("14:21")).action == "keep"
        assert decide(run, heartbeat, POLICY, at("14:20")).action == "stop"

    def test_time_without_news_is_not_added_to_idleness(self) -> None:
        run = a_run(warned=warned("14:01", "14:11"), seen=Seen(BOOT, 102, at("14:08")))
        assert decide(run, beat("14:08", 102, input=58), POLICY, at("14:13")).action == "keep"

    def test_a_hanging_jupyter_is_not_idle_for_four_hours(self) -> None:
        run = a_run(seen=Seen(BOOT, 90, at("13:00"), {"kernel": at("13:00")}))
        heartbeat = replace(beat("15:00", input=120, kernel=120), unknown=frozenset({"kernel"}))
        decision = decide(run, heartbeat, POLICY, at("15:01"))
        assert (decision.action, decision.code) == ("keep", "recently_active")
        assert decision.reason == (
            "what the kernels do is unknown just now, and unknown is not idle; it counts as use until at most 17:00 UTC"
        )
        assert decision.last_active_at == at("13:00")
        late = replace(beat("17:00", input=240, kernel=240), unknown=frozenset({"kernel"}))
        assert decide(run, late, POLICY, at("17:01")).action == "warn"

    def test_what_is_unknown_is_counted_from_when_it_began_to_be(self) -> None:
        run = a_run(seen=Seen(BOOT, 90, at("13:00"), {"kernel": at("12:00"), "gpu": at("11:00")}))
        seen = observed(run, replace(beat("14:00"), unknown=frozenset({"kernel", "input"})), at("14:01"))
        assert seen == Seen(BOOT, 100, at("14:01"), {"kernel": at("12:00"), "input": at("14:01")})
        assert observed(replace(run, seen=seen), beat("14:00"), at("14:30")) == seen

    def test_a_stop_by_the_end_of_the_unknown_says_what_could_not_be_told_and_nothing_of_it(self) -> None:
        run = a_run(
            seen=Seen(BOOT, 90, at("17:00"), {"kernel": at("13:00"), "terminal": at("13:05")}),
            warned=warned("17:06", "17:16"),
        )
        blind = frozenset({"kernel", "terminal"})
        late = replace(beat("17:18", input=270, kernel=250), unknown=blind)
        decision = decide(run, late, POLICY, at("17:19"))
        assert (decision.action, decision.code) == ("stop", "idle")
        assert decision.reason == (
            "what the kernels do and what runs in terminals could not be told since 13:00 UTC, which counts as use "
            "only for hours; as far as can be told idle since 13:08 UTC: no input since 12:48 UTC, no process of yours "
            "used CPU, disk or network"
        )
        everything = frozenset(SIGNALS)
        run = replace(run, seen=Seen(BOOT, 90, at("17:00"), dict.fromkeys(everything, at("13:00"))))
        decision = decide(run, replace(beat("17:18"), unknown=everything), POLICY, at("17:19"))
        assert decision.action == "stop"
        assert decision.reason.endswith("could not be told since 13:00 UTC, which counts as use only for hours")
        assert "idle" not in decision.reason

    def test_a_stop_of_a_silent_machine_says_that_nobody_could_tell(self) -> None:
        run = a_run(seen=Seen(BOOT, 100, at("14:00")), warned=warned("15:00", "18:00", "silent"))
        decision = decide(run, beat("14:00", kernel=0), POLICY, at("18:00"))
        assert (decision.action, decision.code) == ("stop", "silent")
        assert decision.reason == (
            "no heartbeat since 14:00 UTC: whether it was in use could not be told, which counts as use only for hours "
            "(the last thing known: a kernel was busy)"
        )

    def test_after_a_reboot_nothing_is_said_of_the_time_before(self) -> None:
        heartbeat = replace(beat("14:00"), uptime=timedelta(minutes=5))
        assert decide(a_run(), heartbeat, POLICY, at("14:01")).reason == (
            "its machine restarted 13:55 UTC and nobody has used it since; patience until 14:55 UTC"
        )
        late = replace(beat("14:50", 110), uptime=timedelta(minutes=55))
        assert decide(a_run(), late, POLICY, at("14:51")).reason.startswith(
            "idle since 13:55 UTC: no input since its machine restarted 13:55 UTC, kernel idle"
        )

    def test_the_sweep_before_the_last_one_warns_so_that_it_stops_at_its_limit(self) -> None:
        early = decide(a_run(), beat("14:00", input=42), POLICY, at("14:01"))
        assert (early.action, early.due_at) == ("keep", at("14:02"))
        decision = decide(a_run(), beat("14:02", input=45), POLICY, at("14:03"))
        assert (decision.action, decision.stops_at, decision.due_at) == ("warn", at("14:17"), at("14:17"))

    def test_a_short_pause_of_a_short_limit_is_not_warned_of(self) -> None:
        run = a_run(idle_minutes=20)
        assert decide(run, beat("14:00", input=9), POLICY, at("14:00")).action == "keep"
        assert decide(run, beat("14:00", input=10), POLICY, at("14:00")).action == "warn"

    def test_what_is_overdue_stops_now_and_not_in_the_past(self) -> None:
        run = a_run(warned=warned("14:01", "14:11"))
        heartbeat = beat("14:08", 103, input=60)
        assert shown(run, heartbeat, POLICY, at("14:20")).stops_at == at("14:20")
        assert decide(run, heartbeat, POLICY, at("14:20")).stops_at == at("14:20")
        limited = a_run(max_hours=2)
        assert shown(limited, beat("10:00", kernel=0), POLICY, at("10:04")).stops_at == at("10:04")

    def test_a_warning_whose_message_is_not_out_is_none(self) -> None:
        given = warned("14:01", "14:11")
        model = Warned(times.to_text(given.at), times.to_text(given.stops_at), "idle", BOOT)
        assert GivenWarning.from_model(model) == given
        assert GivenWarning.from_model(replace(model, told=False)) is None

    def test_a_clock_that_is_wrong_is_not_believed(self) -> None:
        for wrong in (at("09:00"), at("20:00"), None):
            decision = decide(a_run(), replace(beat("14:00", input=30), at=wrong), POLICY, at("14:01"))
            assert decision.last_active_at == at("13:31")

    def test_a_notebook_that_is_not_ready_is_left_alone(self) -> None:
        decision = decide(a_run(state="stopping"), None, POLICY, at("20:00"))
        assert (decision.action, decision.stops_at, decision.reason) == (
            "keep",
            None,
            "nothing to decide while it is stopping",
        )

    def test_minutes_can_be_seconds(self) -> None:
        policy = Policy(minute=timedelta(seconds=1))
        run = a_run(run_started_at=at("14:00"), ready_at=at("14:00"), seen=None)
        now = at("14:00") + timedelta(seconds=55)
        heartbeat = replace(beat(now), uptime=timedelta(seconds=55))
        decision = decide(run, heartbeat, policy, now)
        assert (decision.action, decision.stops_at) == ("warn", now + timedelta(seconds=10))

    def test_other_days_are_named(self) -> None:
        decision = decide(a_run(), beat(START + timedelta(days=1), input=50), POLICY, START + timedelta(days=1))
        assert "idle since 07:10 UTC" in decision.reason
        run = a_run(hold_until=START + timedelta(days=2))
        held = decide(run, beat(START + timedelta(days=1), input=1000), POLICY, START + timedelta(days=1))
        assert held.reason == "you asked to keep it until 24 Nov 08:00 UTC; idle since 22 Nov 15:20 UTC"

    def test_get_shows_what_the_sweep_would_find(self) -> None:
        seen = shown(a_run(), beat("14:00", input=30), POLICY, at("14:01"))
        assert (seen.last_active_at, seen.last_activity, seen.stops_at) == (
            at("13:30"),
            "somebody used it",
            at("14:30"),
        )

    def test_an_active_notebook_is_read_each_quarter_of_an_hour_at_the_latest(self) -> None:
        assert decide(a_run(), beat("14:00", kernel=0), POLICY, at("14:01")).due_at == at("14:15")

    def test_the_record_gives_the_run(self) -> None:
        text = times.to_text
        notebook = Notebook.from_record(
            {
                "id": "nb-0",
                "owner": "ada",
                "name": "thesis",
                "state": "ready",
                "created_at": text(START),
                "instance_type": "t3.medium",
                "volume_gib": 30,
                "idle_minutes": 60,
                "environment": "anaconda",
                "run_started_at": text(START),
                "ready_at": text(at("08:04")),
                "warned": warned("14:01", "14:11").to_record(),
                "seen": Seen(BOOT, 5, at("14:00"), {"kernel": at("13:00")}).to_record(),
            }
        )
        run = Run.from_notebook(notebook)
        assert (run.state, run.run_started_at, run.ready_at) == ("ready", START, at("08:04"))
        assert run.warned == warned("14:01", "14:11")
        assert run.seen is not None
        assert run.seen == Seen(BOOT, 5, at("14:00"), {"kernel": at("13:00")})

    def test_a_warning_whose_times_cannot_be_read_has_to_be_given_again(self) -> None:
        assert GivenWarning.from_model(Warned("yesterday", "soon", "idle")) is None
        assert Seen.from_model(SeenBeat(BOOT, 5, "yesterday")) is None


# The laws, over days that hypothesis makes up. Times are whole minutes since START.

MINUTE = timedelta(minutes=1)
END = 10 * 60


@dataclass(frozen=True)
class Life:
    """What happens: when each signal was active, when heartbeats come and sweeps look, when somebody extends."""

    active: Mapping[str, frozenset[float]]
    beats: tuple[float, ...]
    sweeps: tuple[float, ...]
    holds: tuple[tuple[float, float], ...] = ()
    limit: int = 60
    max_hours: int | None = None
    busy: bool = False
    blind: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    garbage: Mapping[float, object] = field(default_factory=dict)

    def heartbeat(self, now: float, number: int) -> Heartbeat | None:
        if now in self.garbage:
            return Heartbeat.from_record(self.garbage[now])
        ages = {
            signal: timedelta(minutes=now - max(moment for moment in moments if moment <= now))
            for signal, moments in self.active.items()
            if any(moment <= now for moment in moments)
        }
        if self.busy:
            ages["kernel"] = timedelta(0)
        unknown = frozenset(signal for signal, (begin, end) in self.blind.items() if begin <= now < end)
        known = {signal: age for signal, age in ages.items() if signal not in unknown}
        moment = START + now * MINUTE
        return Heartbeat(BOOT, number, moment, (now + 2) * MINUTE, known, unknown)


def live(life: Life, *, due: bool = False) -> list[tuple[float, Decision]]:
    """Every decision until the stop. `due`: the sweep reads a notebook only when it is due."""
    run = Run("ready", START, life.limit, life.max_hours, ready_at=START)
    made: list[tuple[float, Decision]] = []
    next_due = START
    for sweep in life.sweeps:
        now = START + sweep * MINUTE
        holds = [START + until * MINUTE for moment, until in life.holds if moment <= sweep]
        run = replace(run, hold_until=max(holds, default=None))
        if due and now < next_due:
            continue
        come = bisect_right(life.beats, sweep)
        heartbeat = life.heartbeat(life.beats[come - 1], come) if come else None
        decision = decide(run, heartbeat, POLICY, now)
        made.append((sweep, decision))
        if decision.action == "stop":
            break
        run = replace(
            run,
            seen=observed(run, heartbeat, now),
            decided_at=max(now, run.decided_at or now),
            warned=decision.warned or run.warned,
        )
        next_due = decision.due_at
    return made


def stopped(life: Life, *, due: bool = False) -> float:
    """When it stopped; for ever if not on this day."""
    sweep, decision = live(life, due=due)[-1]
    return sweep if decision.action == "stop" else float("inf")


def reboots(lives: list[int], end: float) -> list[float]:
    """When a machine boots whose boots last so many minutes, one after the other."""
    boots, index = [0.0], 0
    while boots[-1] < end:
        boots.append(boots[-1] + lives[index % len(lives)])
        index += 1
    return boots


def crash(
    boots: list[float], limit: int, *, used: tuple[float, ...], period: int, hours: int = 20
) -> list[tuple[float, Decision]]:
    """Every decision of a machine that boots at these minutes and is used at those; `period`: of its heartbeats."""
    run = Run("ready", START, limit, ready_at=START, seen=Seen(None, None, START))
    made: list[tuple[float, Decision]] = []
    number, heartbeat = 0, None
    for minute in range(1, hours * 60):
        booted = boots[bisect_right(boots, minute) - 1]
        # The first heartbeat of a boot comes after a minute.
        if minute - booted >= 1 and (minute - booted - 1) % period == 0:
            number += 1
            before = bisect_right(used, minute)
            ages = {"input": (minute - used[before - 1]) * MINUTE} if before and used[before - 1] >= booted else {}
            moment = START + minute * MINUTE
            heartbeat = Heartbeat(f"boot {booted}", number, moment, (minute - booted) * MINUTE, ages)
        if minute % 5:
            continue
        now = START + minute * MINUTE
        decision = decide(run, heartbeat, POLICY, now)
        made.append((float(minute), decision))
        if decision.action == "stop":
            break
        run = replace(run, seen=observed(run, heartbeat, now), decided_at=now, warned=decision.warned or run.warned)
        # What the record keeps of it, and nothing else.
        run = replace(run, seen=Seen.from_model(_seen_of(run.seen)))
    return made


def _seen_of(seen: Seen | None) -> SeenBeat | None:
    row = {} if seen is None else {"id": "nb-0", "seen": seen.to_record()}
    known = {"owner": "ada", "name": "thesis", "state": "ready", "created_at": times.to_text(START)}
    sizes = {"instance_type": "t3.medium", "volume_gib": 30, "idle_minutes": 60, "environment": "anaconda"}
    return Notebook.from_record({**known, **sizes, **row}).seen if row else None


MOMENTS = st.integers(0, END).map(float)
ACTIVE = st.dictionaries(st.sampled_from(SIGNALS), st.frozensets(MOMENTS, max_size=6), max_size=4)
LIMITS = st.sampled_from([5, 10, 30, 60, 90, 300])


@st.composite
def looks(draw: st.DrawFn, period: float, jitter: float) -> tuple[float, ...]:
    """A schedule with jitter, gaps and doubles."""
    gaps = draw(st.lists(st.tuples(MOMENTS, st.integers(1, 300)), max_size=2))
    shift = draw(st.floats(0, period))
    seeds = draw(st.lists(st.floats(0, jitter), min_size=1, max_size=7))
    found = []
    for number in range(int(END / period)):
        moment = round(shift + number * period + seeds[number % len(seeds)], 2)
        if not any(begin <= moment < begin + length for begin, length in gaps):
            found += [moment, moment] if number % 11 == 0 else [moment]
    assume(found)
    return tuple(sorted(found))


SWEEPS = looks(5, 3)
BEATS = looks(4, 1)
LIVES = st.builds(Life, ACTIVE, BEATS, SWEEPS, limit=LIMITS)


class TestLaws:
    @given(
        st.builds(Heartbeat, st.just(BOOT), st.just(9), st.none(), st.just(timedelta(hours=9)), st.just({})),
        st.dictionaries(st.sampled_from(SIGNALS), st.integers(0, 600)),
        st.dictionaries(st.sampled_from(SIGNALS), st.integers(0, 600)),
        st.integers(0, 600),
        st.sampled_from(["idle", "silent", "limit"]),
        LIMITS,
        st.none() | st.integers(0, 600),
    )
    def test_at_one_look_more_activity_never_stops_what_less_would_keep(
        self,
        heartbeat: Heartbeat,
        less: dict[str, int],
        more: dict[str, int],
        warned_at: int,
        code: str,
        limit: int,
        hold: int | None,
    ) -> None:
        both = {name: min(less.get(name, 10**6), more.get(name, 10**6)) for name in less | more}
        now = START + 601 * MINUTE
        warning = GivenWarning(START + warned_at * MINUTE, START + (warned_at + 5) * MINUTE, code, BOOT)
        run = a_run(warned=warning, idle_minutes=limit, hold_until=START + hold * MINUTE if hold is not None else None)

        def action(ages: Mapping[str, int]) -> str:
            told = replace(heartbeat, ages={name: age * MINUTE for name, age in ages.items()})
            return decide(run, told, POLICY, now).action

        if action(both) == "stop":
            assert action(less) == "stop"

    @settings(max_examples=100, deadline=None)
    @given(LIVES, ACTIVE)
    def test_more_activity_never_stops_earlier(self, life: Life, more: dict[str, frozenset[float]]) -> None:
        busier = {name: life.active.get(name, frozenset()) | more.get(name, frozenset()) for name in SIGNALS}
        assert stopped(replace(life, active=busier)) >= stopped(life)

    @settings(max_examples=100, deadline=None)
    @given(LIVES, MOMENTS, st.integers(1, 24 * 60), st.sampled_from([None, 4, 12]))
    def test_extending_never_stops_earlier(self, life: Life, moment: float, minutes: int, hours: int | None) -> None:
        life = replace(life, max_hours=hours)
        extended = replace(life, holds=((moment, moment + minutes),))
        stop = stopped(extended)
        assert stop >= stopped(life)
        assert stop >= moment + minutes or stop <= moment

    @settings(max_examples=100, deadline=None)
    @given(LIVES, st.booleans(), st.lists(st.tuples(MOMENTS, MOMENTS), max_size=2), st.sampled_from([None, 4, 12]))
    def test_a_stop_keeps_the_promise_of_a_warning(
        self, life: Life, due: bool, holds: list[tuple[float, float]], hours: int | None
    ) -> None:
        made = live(replace(life, holds=tuple(holds), max_hours=hours), due=due)
        moment, last = made[-1]
        if last.action != "stop" or last.code == "limit":
            return
        given_at, given = next((at, one) for at, one in reversed(made) if one.action == "warn")
        assert given.code == last.code
        assert given.stops_at is not None
        assert given.stops_at <= START + moment * MINUTE
        assert round(moment - given_at, 2) >= min(10, life.limit / 2)
        # Nobody was there between the warning and the last heartbeat.
        assert (
            not [
                use
                for name in ACTIVITY
                for use in life.active.get(name, ())
                if given_at < use <= max([beat for beat in life.beats if beat <= moment], default=0)
            ]
            or last.code == "silent"
        )

    @given(LIVES, st.sampled_from([1, 4, 12]))
    @settings(max_examples=100, deadline=None)
    def test_the_hard_limit_is_kept_and_told_before(self, life: Life, hours: int) -> None:
        life = replace(life, busy=True, max_hours=hours, limit=max(life.limit, 60))
        made = live(life)
        moment, last = made[-1]
        after = [sweep for sweep in life.sweeps if sweep >= hours * 60]
        if last.action == "stop" and last.code == "limit":
            assert moment == after[0]
            near = [look for look, _ in made if hours * 60 - min(60, hours * 30) <= look < hours * 60]
            given = [one.warned for _, one in made if one.warned is not None]
            # By a message of its own, or by one of an earlier stop.
            assert not near or any(one.stops_at <= START + hours * 60 * MINUTE for one in given)
        else:
            assert not after or last.code == "silent"

    @given(LIVES, st.sampled_from([1, 4, 12]), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_the_hard_limit_of_what_is_heard_of_is_told_once_at_the_first_look_near_it(
        self, life: Life, hours: int, due: bool
    ) -> None:
        beats = tuple(4.0 * number for number in range(END // 4))
        life = replace(life, beats=beats, busy=True, max_hours=hours, limit=max(life.limit, 60))
        made = live(life, due=due)
        told = [(look, one.code, one.warned and one.warned.stops_at) for look, one in made if one.action == "warn"]
        near = [look for look, _ in made if hours * 60 - min(60, hours * 30) <= look < hours * 60]
        assert told == [(first, "limit", START + hours * 60 * MINUTE) for first in near[:1]]

    @settings(max_examples=100, deadline=None)
    @given(BEATS, SWEEPS, LIMITS, st.booleans())
    def test_a_busy_kernel_is_never_stopped_while_its_heartbeats_come(
        self, beats: tuple[float, ...], sweeps: tuple[float, ...], limit: int, due: bool
    ) -> None:
        life = Life({}, beats, sweeps, limit=limit, busy=True)
        moment, last = live(life, due=due)[-1]
        if last.action == "stop":
            assert last.code == "silent"
            assert not [beat for beat in beats if moment - 239 <= beat <= moment]

    @given(
        st.integers(-120, 360).map(lambda minutes: START + minutes * timedelta(minutes=1)),
        st.dictionaries(st.sampled_from(SIGNALS), st.integers(0, 400)),
        st.booleans(),
        st.none() | st.just(6),
    )
    def test_time_that_goes_back_changes_nothing(
        self, earlier: datetime, ages: dict[str, int], warning: bool, hours: int | None
    ) -> None:
        run = a_run(decided_at=at("14:00"), warned=warned("13:30", "13:40") if warning else None, max_hours=hours)
        heartbeat = beat("13:59", **{name: float(age) for name, age in ages.items()})
        assert decide(run, heartbeat, POLICY, earlier) == decide(run, heartbeat, POLICY, at("14:00"))

    @settings(max_examples=100, deadline=None)
    @given(LIVES, st.sampled_from(SIGNALS), MOMENTS, st.integers(1, END))
    def test_what_is_not_known_does_not_stop_earlier_than_what_is_known_to_be_idle(
        self, life: Life, signal: str, begin: float, length: int
    ) -> None:
        blind = replace(life, blind={signal: (begin, begin + length)})
        idle = {name: frozenset(m for m in moments if name != signal) for name, moments in life.active.items()}
        assert stopped(blind) >= stopped(replace(life, active=idle))

    @settings(max_examples=100, deadline=None)
    @example([0.0], 1.0, 300, frozenset(), 0.0)  # a limit above the four hours of silence
    @given(
        st.lists(st.floats(0, 3), min_size=1, max_size=7),
        st.floats(0, 4),
        LIMITS,
        st.frozensets(MOMENTS, max_size=30),
        MOMENTS,
    )
    def test_heartbeats_that_are_lost_do_not_stop_it_earlier(
        self, jitter: list[float], first: float, limit: int, lost: frozenset[float], dead: float
    ) -> None:
        # While the sweep looks: one that was dead for hours may have warned of the silence, and of nothing else.
        sweeps = tuple(5 * number + jitter[number % len(jitter)] for number in range(END // 5))
        beats = tuple(first + 4 * number for number in range(END // 4))
        idle = Life({}, beats, sweeps, limit=limit)
        kept = tuple(b for b in beats if b < dead and not any(gap <= b < gap + 10 for gap in lost))
        assert stopped(replace(idle, beats=kept)) >= stopped(idle)

    GARBAGE = (
        st.none() | st.booleans() | st.text(max_size=5) | st.binary(max_size=5) | st.just(float("nan")) | st.just([])
    )

    @settings(max_examples=100, deadline=None)
    @given(
        LIVES,
        MOMENTS,
        st.lists(
            st.fixed_dictionaries(
                {"ages": GARBAGE | st.dictionaries(st.sampled_from(SIGNALS), GARBAGE, min_size=8)},
                optional={
                    "boot_id": GARBAGE | st.just(BOOT),
                    "beat": GARBAGE | st.integers(0, 10**6),
                    "at": GARBAGE | st.just("2026-11-22T14:05:00Z"),
                    "uptime": GARBAGE | st.integers(0, 10**6),
                    "unknown": GARBAGE,
                    "facts": GARBAGE,
                },
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def test_garbage_stops_nothing_earlier_than_silence(
        self, life: Life, begin: float, found: list[dict[str, object]]
    ) -> None:
        # A heartbeat that no sweep saw before the garbage took its place is lost to both.
        looked = max((sweep for sweep in life.sweeps if sweep < begin), default=-1.0)
        silent = replace(life, beats=tuple(moment for moment in life.beats if moment <= looked))
        rows = {moment: found[index % len(found)] for index, moment in enumerate(life.beats) if moment > looked}
        assert stopped(replace(life, garbage=rows)) >= stopped(silent)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.floats(0, 0.9), min_size=1, max_size=5),
        st.lists(st.floats(0, 0.9), min_size=1, max_size=5),
        ACTIVE,
        st.sampled_from([5, 10, 30, 60, 90, 300]),
        st.booleans(),
    )
    def test_what_is_idle_ends(
        self, beats: list[float], sweeps: list[float], active: dict[str, frozenset[float]], limit: int, due: bool
    ) -> None:
        life = Life(
            active,
            tuple(4 * n + beats[n % len(beats)] for n in range(END)),
            tuple(5 * n + sweeps[n % len(sweeps)] for n in range(END)),
            limit=limit,
        )
        used = max((moment for name in ACTIVITY for moment in active.get(name, ())), default=0.0)
        seen = max(active.get("browser", frozenset()), default=0.0)
        patience = max(used + limit, min(used + limit + max(limit, 30), seen + min(limit, 30)), 15)
        assert stopped(life, due=due) <= patience + min(10, limit / 2) + 2 * 6

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.floats(0, 0.9), min_size=1, max_size=5),
        st.floats(0, 5),
        MOMENTS.filter(lambda moment: moment < END - 400),
        st.sampled_from([5, 10, 15, 20, 30, 60, 90, 300]),
        st.booleans(),
    )
    def test_a_stop_comes_at_the_limit_and_not_before(
        self, jitter: list[float], first: float, used: float, limit: int, due: bool
    ) -> None:
        # A monitor near the limit tells each minute how it is.
        beats = tuple(float(minute) + 0.5 for minute in range(END))
        sweeps = tuple(first + 5 * n + jitter[n % len(jitter)] for n in range(END // 5))
        life = Life({"input": frozenset(float(moment) for moment in range(int(used) + 1))}, beats, sweeps, limit=limit)
        ends = max(used + limit, 15)
        # A minute until it is told, and a sweep until it is seen; another where half a limit is less than two sweeps.
        late = 1 + 5.9 + (0 if limit >= 30 else 5.9)
        assert ends <= stopped(life, due=due) <= ends + late

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.integers(2, 45), min_size=1, max_size=6),
        st.sampled_from([5, 10, 30, 60, 90]),
        st.integers(0, 120),
        st.integers(1, 4),
    )
    def test_a_machine_that_reboots_for_ever_stops_in_the_end_and_its_owner_is_warned(
        self, lives: list[int], limit: int, used: int, period: int
    ) -> None:
        boots = reboots(lives, 20 * 60)
        made = crash(boots, limit, used=(float(used),), period=period)
        moment, last = made[-1]
        assert last.action == "stop"
        cap = max(240, limit + 60)
        # Where a boot is too short to be heard of, silence counts from the last one that was.
        assert moment <= max(boots[1], used + max(lives)) + 2 * cap + 60
        warnings = [(at, one) for at, one in made if one.action == "warn"]
        assert moment - warnings[-1][0] >= min(10, limit / 2)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(10, 45), min_size=1, max_size=6), st.sampled_from([5, 10, 30, 60, 90]))
    def test_a_machine_that_reboots_and_is_used_in_each_boot_is_kept(self, lives: list[int], limit: int) -> None:
        boots = reboots(lives, 12 * 60)
        uses = tuple(float(minute) for minute in range(1, 12 * 60, 4))
        assert crash(boots, limit, used=uses, period=1, hours=12)[-1][1].action != "stop"

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 400), st.sampled_from([10, 30, 60, 90]))
    def test_one_reboot_counts_as_use(self, reboot: int, limit: int) -> None:
        once = crash([0.0, float(reboot)], limit, used=(), period=1)
        stop, last = once[-1]
        assert last.action == "stop"
        assert stop >= (reboot if reboot < limit else 0) + limit

    @given(LIVES, st.sampled_from([None, 1, 4]), st.lists(st.tuples(MOMENTS, MOMENTS), max_size=2), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_no_stop_is_said_to_be_in_the_past(
        self, life: Life, hours: int | None, holds: list[tuple[float, float]], due: bool
    ) -> None:
        for sweep, decision in live(replace(life, max_hours=hours, holds=tuple(holds)), due=due):
            assert decision.stops_at is not None
            assert decision.stops_at >= START + sweep * MINUTE

    @given(LIVES, st.sampled_from([None, 4]))
    @settings(max_examples=60, deadline=None)
    def test_every_decision_can_be_kept_and_says_why(self, life: Life, hours: int | None) -> None:
        for sweep, decision in live(replace(life, max_hours=hours)):
            now = START + sweep * MINUTE
            to_attribute(decision.signals)
            assert decision.reason
            assert decision.due_at >= now + MINUTE
            assert decision.due_at <= now + 15 * MINUTE
            assert decision.stops_at is not None
            assert (decision.warned is not None) == (decision.action == "warn")
            assert decision.last_active_at is None or START <= decision.last_active_at <= now


@pytest.mark.parametrize("signal", ACTIVITY)
def test_each_signal_alone_keeps_it(signal: str) -> None:
    decision = decide(a_run(), beat("14:00", **{signal: 1.0}), POLICY, at("14:01"))
    assert (decision.action, decision.code) == ("keep", "active")
    assert decision.reason
