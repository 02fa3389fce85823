"""The kinds of days, each with variations by seed: what happens, and when the machine is needed.

Written before any rule ran on them. Needed is the time in which the machine does work that somebody waits for, and the
time in which a person is at it: reading and thinking too, and an absence of under an hour from which they come back.
Not needed is what only looks like use: a forgotten session, page, thread, prober or daemon, a cell that waits for keys.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.idle.world import DAY, HOUR, MINUTE, Asked, Day, Page, Shell, Work

MIB = 1024.0**2
KIB = 1024.0
NIGHT = DAY
"""What is left behind stays until the day's end."""


def day_of(name: str, seed: int) -> Day:
    """The day of a kind; the same for the same seed."""
    day = Day(name, random.Random(f"{name} {seed}"))
    (KINDS | ADDED | BEYOND)[name](day)
    return day


# People.


def sit(day: Day, start: float, seconds: float, leave: str = "closed", until: float = NIGHT) -> float:
    """A person in JupyterLab: types, thinks, runs short cells, looks elsewhere at times. Answers when they leave.

    `leave`: the page is `closed` (or the laptop sleeps), or stays `hidden` or `visible` until `until`. The last thing
    that they do is to save.
    """
    rng, end = day.rng, start + seconds
    day.need(start, end)
    if not any(begin <= start < stop for begin, stop in day.kernels):
        day.kernels.append((start, DAY))
    kernel = next(index for index, (begin, stop) in enumerate(day.kernels) if begin <= start < stop)
    moment = start + rng.uniform(1, 5)
    visible: list[tuple[float, float]] = []
    shown_from = start
    while moment < end:
        day.inputs.append((moment, False))
        if rng.random() < 0.12:
            ends = min(end, moment + rng.choice([0.3, 1, 5, 20, 60]) * rng.uniform(0.5, 1.5))
            day.works.append(Work(moment, ends, kernel=kernel, cpu=rng.uniform(0.3, 1.0)))
        pause = rng.expovariate(1 / 40) if rng.random() < 0.93 else rng.uniform(60, 12 * MINUTE)
        if pause > 2 * MINUTE and rng.random() < 0.5:
            # They look something up in another tab.
            visible.append((shown_from, min(moment + 20, end)))
            shown_from = min(end, moment + pause - 10)
        moment += pause
    day.inputs.append((end, False))
    visible.append((shown_from, until if leave == "visible" else end))
    day.pages.append(Page(start, end if leave == "closed" else until, tuple(v for v in visible if v[1] > v[0])))
    return end


def type_in(day: Day, start: float, end: float, *, pause: float = 40.0) -> None:
    """A person at an SSH session: needed, and each key seen there."""
    day.need(start, end)
    moment = start
    while moment < end:
        day.inputs.append((moment, True))
        moment += day.rng.expovariate(1 / pause)
    day.inputs.append((end, True))


def left(day: Day) -> str:
    """How a page is left by one who goes: not in sight."""
    return day.rng.choice(["closed", "hidden"])


def morning(day: Day) -> float:
    """When the first person comes."""
    return day.rng.uniform(8, 10) * HOUR


def minutes(day: Day, low: float, high: float) -> float:
    """Seconds of some minutes."""
    return day.rng.uniform(low, high) * MINUTE


def hours(day: Day, low: float, high: float) -> float:
    """Seconds of some hours."""
    return day.rng.uniform(low, high) * HOUR


def task(day: Day, work: Work) -> float:
    """Work that somebody waits for; answers when it ends."""
    day.works.append(work)
    day.need(work.start, work.end)
    return work.end


# The kinds.


def leave_and_return(day: Day) -> None:
    """People go for up to an hour and come back, go for hours and come back, go for the night."""
    start = morning(day)
    for _ in range(3):
        length, away = minutes(day, 30, 90), minutes(day, 20, 59)
        end = sit(day, start, length, day.rng.choice(["closed", "hidden", "visible"]), start + length + away)
        day.need(end, end + away)
        start = end + away
    end = sit(day, start, minutes(day, 30, 60), left(day), start + 2 * HOUR)
    sit(day, end + hours(day, 2, 4), minutes(day, 20, 60), left(day))


def silent_cell(day: Day) -> None:
    """A cell of 7 hours that prints nothing; some compute, some only wait."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 30, end + hours(day, 6.5, 7.5), kernel=0, cpu=day.rng.choice([0.0, 0.004, 0.5, 1.0, 2.0])))


def printing_cell(day: Day) -> None:
    """A cell that prints a line now and then, for hours."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    ends = end + hours(day, 3, 6)
    task(day, Work(end - 20, ends, kernel=0, cpu=day.rng.uniform(0.02, 1), prints=day.rng.uniform(1, 900)))


def detached_child(day: Day) -> None:
    """A cell starts a training in a process of its own and ends; the kernel is idle."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 2, 6), cpu=day.rng.choice([0.12, 0.3, 1.0, 2.0])))


def detached_download(day: Day) -> None:
    """A download in the background, slow ones too, with next to no CPU."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    rate = day.rng.choice([50 * KIB, 200 * KIB, 2 * MIB, 20 * MIB]) * day.rng.uniform(1, 1.5)
    task(day, Work(end - 20, end + hours(day, 2, 5), cpu=0.02, network=rate, disk=rate))


def detached_copy(day: Day) -> None:
    """A copy between disks in the background."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 1.5, 4), cpu=0.05, disk=day.rng.uniform(1, 100) * MIB))


def dask_workers(day: Day) -> None:
    """Workers compute while the kernel is idle; then they sit there and send their own heartbeats."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    done = task(day, Work(end - 20, end + hours(day, 2, 4), cpu=day.rng.uniform(0.6, 2.0), network=3 * KIB))
    day.works.append(Work(done, NIGHT, cpu=day.rng.uniform(0.02, 0.05), network=day.rng.uniform(0, 3) * KIB))


def gpu_training(day: Day) -> None:
    """A training on the GPU in a process of its own that uses little CPU."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 2, 5), cpu=day.rng.uniform(0.02, 0.08), gpu=day.rng.uniform(30, 99)))


def terminal_silent(day: Day) -> None:
    """A command in a terminal of Jupyter that prints nothing; the tab is closed. Then the shell waits at its prompt."""
    start = morning(day)
    end = sit(day, start, minutes(day, 15, 60), left(day))
    day.shells.append(Shell(start + 60, NIGHT))
    task(day, Work(end - 20, end + hours(day, 2, 6), shell=0, cpu=day.rng.choice([0.0, 0.03, 1.0])))


def terminal_printing(day: Day) -> None:
    """The same with output."""
    start = morning(day)
    end = sit(day, start, minutes(day, 15, 60), left(day))
    day.shells.append(Shell(start + 60, NIGHT))
    ends = end + hours(day, 2, 6)
    task(day, Work(end - 20, ends, shell=0, cpu=day.rng.uniform(0.02, 1), prints=day.rng.uniform(1, 120)))


def ssh_only(day: Day) -> None:
    """A person works over SSH: shell, an editor, a long silent command while they are away. Jupyter is not opened."""
    start = morning(day)
    middle = start + minutes(day, 40, 120)
    type_in(day, start, middle)
    day.works.append(Work(start + 300, middle - 60, shell=0, waits=True, cpu=0.005))
    done = task(day, Work(middle, middle + hours(day, 1.5, 4), shell=0, cpu=day.rng.choice([0.0, 0.5, 1.0])))
    end = done + minutes(day, 10, 40)
    type_in(day, done, end)
    day.shells.append(Shell(start, end, ssh=True))


def forgotten_ssh(day: Day) -> None:
    """A session stays open over night: at the prompt, or with `htop`, `tail -f` or an editor."""
    start = morning(day)
    end = start + minutes(day, 30, 120)
    type_in(day, start, end)
    day.shells.append(Shell(start, NIGHT, ssh=True))
    if day.rng.random() < 0.7:
        day.works.append(Work(end, NIGHT, shell=0, waits=True, cpu=day.rng.uniform(0, 0.03), prints=2.0))


def input_for_ever(day: Day) -> None:
    """A cell waits in `input()` and nobody comes."""
    end = sit(day, morning(day), minutes(day, 20, 90), left(day))
    day.works.append(Work(end - 5, NIGHT, kernel=0, waits=True))


def heartbeat_thread(day: Day) -> None:
    """A thread of an idle kernel prints for ever."""
    end = sit(day, morning(day), minutes(day, 20, 90), left(day))
    day.works.append(Work(end - 60, NIGHT, thread_of=0, cpu=0.01, prints=day.rng.uniform(1, 60)))


def reading(day: Day) -> None:
    """A person reads for 75 minutes, now and then in another tab, and goes on; twice."""
    end = sit(day, morning(day), minutes(day, 20, 60))
    for _ in range(2):
        length = minutes(day, 65, 110)
        visible, moment = [], end
        while moment < end + length:
            shown = min(minutes(day, 8, 40), end + length - moment)
            visible.append((moment, moment + shown))
            moment += shown + (minutes(day, 2, 25) if day.rng.random() < 0.5 else 1.0)
        day.pages.append(Page(end, end + length, tuple(visible)))
        day.need(end, end + length)
        end = sit(day, end + length, minutes(day, 15, 50))


def bursts(day: Day) -> None:
    """A process computes for seconds and then sleeps for long, for hours."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    pulse = (day.rng.uniform(5, 40), minutes(day, 5, 55))
    task(day, Work(end - 20, end + hours(day, 3, 8), cpu=day.rng.uniform(0.7, 1.5), pulse=pulse))


def remote_cluster(day: Day) -> None:
    """A cell, or a command in a terminal, waits for a cluster elsewhere and asks it now and then."""
    start = morning(day)
    end = sit(day, start, minutes(day, 15, 60), left(day))
    done = end + hours(day, 2, 8)
    if day.rng.random() < 0.5:
        task(day, Work(end - 20, done, kernel=0, cpu=0.004, network=300.0))
    else:
        day.shells.append(Shell(start + 60, NIGHT))
        task(day, Work(end - 20, done, shell=0, cpu=0.004, network=300.0))


def noisy_daemon(day: Day) -> None:
    """A daemon of the system computes all day (updates, an indexer, a virus scanner)."""
    day.works.append(Work(0, DAY, cpu=day.rng.uniform(0.15, 1.2), disk=3 * MIB, system=True))
    sit(day, morning(day), minutes(day, 30, 120), left(day))
    sit(day, hours(day, 15, 16), minutes(day, 20, 60), left(day))


def background_tab(day: Day) -> None:
    """A tab stays open in the background over night, on a computer that does not sleep."""
    sit(day, morning(day), minutes(day, 30, 150), "hidden")


def visible_tab(day: Day) -> None:
    """A page stays open in a visible window, and nobody is there."""
    sit(day, morning(day), minutes(day, 30, 150), "visible")


def two_users(day: Day) -> None:
    """Two people share it, each with a window of their own; one goes, the other reads and works on."""
    start = morning(day)
    end = sit(day, start, minutes(day, 50, 120), "hidden")
    begin = end - minutes(day, 5, 30)
    length = minutes(day, 50, 90)
    day.pages.append(Page(begin, begin + length, ((begin, begin + length),)))
    day.inputs.append((begin, False))
    day.need(begin, begin + length)
    sit(day, begin + length, minutes(day, 30, 90), left(day))


def clock_step(day: Day) -> None:
    """The machine's clock jumps, by minutes or hours, forth and back, while a cell runs and after it."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    done = task(day, Work(end - 20, end + hours(day, 2, 4), kernel=0, cpu=1.0))
    moment = end
    while moment < done + 2 * HOUR:
        moment += minutes(day, 15, 80)
        day.clock.append((moment, day.rng.choice([-1, 1]) * day.rng.choice([120, 540, 3600, 43200]) * day.rng.random()))


def monitor_restart(day: Day) -> None:
    """The monitor dies and comes back, while a cell runs and after it."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    done = task(day, Work(end - 20, end + hours(day, 2, 4), kernel=0, cpu=day.rng.choice([0.0, 1.0])))
    moment = end
    while moment < done + HOUR:
        moment += minutes(day, 5, 50)
        day.blind.append((moment, moment + day.rng.choice([6, 30, 120, 840]) * day.rng.uniform(0.5, 1)))


def missing_heartbeats(day: Day) -> None:
    """No heartbeat arrives for up to some hours, while a cell runs; then none for a while when nobody is there."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    done = task(day, Work(end - 20, end + hours(day, 5, 7), kernel=0, cpu=day.rng.choice([0.0, 1.0])))
    begin = end + minutes(day, 5, 60)
    day.lost.append((begin, begin + minutes(day, 20, 220)))
    day.lost.append((done + minutes(day, 5, 50), done + minutes(day, 55, 120)))


def prober(day: Day) -> None:
    """Somebody's program asks Jupyter's API all day whether it is there."""
    start = morning(day)
    day.probes.append((start, DAY, day.rng.uniform(15, 120)))
    sit(day, start, minutes(day, 20, 120), left(day))


def idle_service(day: Day) -> None:
    """A process that serves (TensorBoard, Streamlit) is left behind; nobody asks it."""
    end = sit(day, morning(day), minutes(day, 20, 120), left(day))
    day.works.append(Work(end - 600, NIGHT, cpu=day.rng.uniform(0.005, 0.04), disk=day.rng.uniform(0, 20) * KIB))


def nobody_came(day: Day) -> None:
    """It was requested, and nobody opened the link."""
    start = morning(day)
    day.need(start, start + MINUTE)


def jupyter_hangs(day: Day) -> None:
    """Jupyter does not answer for a while, while a cell runs and after it."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    done = task(day, Work(end - 20, end + hours(day, 2, 5), kernel=0, cpu=day.rng.choice([0.0, 1.0])))
    begin = end + minutes(day, 5, 20)
    day.hangs.append((begin, begin + minutes(day, 10, 100)))
    day.hangs.append((done + minutes(day, 5, 30), done + minutes(day, 35, 60)))


def reboot(day: Day) -> None:
    """The machine reboots while somebody uses it, and once more in an absence of under an hour."""
    start = morning(day)
    end = sit(day, start, minutes(day, 50, 100), left(day), start + 100 * MINUTE)
    day.reboots.append(start + minutes(day, 10, 40))
    away = minutes(day, 30, 58)
    day.need(end, end + away)
    day.reboots.append(end + away * day.rng.uniform(0.1, 0.9))
    sit(day, end + away, minutes(day, 20, 60), left(day))


def short_visits(day: Day) -> None:
    """A few minutes now and then, hours apart."""
    moment = morning(day)
    while moment < 18 * HOUR:
        moment = sit(day, moment, minutes(day, 3, 12), left(day), moment + HOUR) + hours(day, 1.2, 3)


def sweep_gap(day: Day) -> None:
    """The control plane does not look for a while, while a cell runs and after it."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    done = task(day, Work(end - 20, end + hours(day, 2, 4), kernel=0, cpu=day.rng.choice([0.0, 1.0])))
    begin = end + minutes(day, 5, 60)
    day.swept.append((begin, begin + minutes(day, 20, 120)))
    day.swept.append((done + minutes(day, 5, 40), done + minutes(day, 45, 80)))


def writing(day: Day) -> None:
    """A person writes text for hours, in a file or in markdown cells, and runs nothing. The page saves it, at most each
    two minutes; they think, read and look things up elsewhere. Then they go."""
    rng, start = day.rng, morning(day)
    end = start + hours(day, 2, 5)
    day.need(start, end)
    visible: list[tuple[float, float]] = []
    moment = shown_from = start
    while moment < end:
        day.inputs.append((moment, False))
        pause = rng.uniform(120, 180) if rng.random() < 0.8 else rng.uniform(3, 25) * MINUTE
        if pause > 5 * MINUTE and rng.random() < 0.5:
            visible.append((shown_from, min(moment + 30, end)))
            shown_from = min(end, moment + pause - 10)
        moment += pause
    visible.append((shown_from, end))
    day.pages.append(Page(start, end if left(day) == "closed" else NIGHT, tuple(v for v in visible if v[1] > v[0])))


def short_bursts(day: Day) -> None:
    """A process in the background computes for a second, waits for up to a minute, and so on for hours."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    pulse = (day.rng.uniform(1.0, 1.8), day.rng.uniform(20, 60))
    task(day, Work(end - 20, end + hours(day, 2, 6), cpu=1.0, pulse=pulse))


def trickle(day: Day) -> None:
    """A process in the background fetches little by little, as one does who is polite to a server, or writes so."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    network, disk = day.rng.choice([(day.rng.uniform(14, 20) * KIB, 0.0), (0.0, day.rng.uniform(120, 200) * KIB)])
    task(day, Work(end - 20, end + hours(day, 2, 5), cpu=0.01, network=network, disk=disk))


def idle_cluster(day: Day) -> None:
    """A local cluster of workers that nobody asks anything any more: each keeps house a little."""
    end = sit(day, morning(day), minutes(day, 20, 90), left(day))
    for _ in range(day.rng.randint(2, 8)):
        day.works.append(Work(end - 600, NIGHT, cpu=day.rng.uniform(0.022, 0.03)))
    day.works.append(Work(end - 600, NIGHT, cpu=day.rng.uniform(0.03, 0.065)))


def rare_bursts(day: Day) -> None:
    """A process in the background computes for a minute and then sleeps for longer than the limit."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 3, 8), cpu=1.0, pulse=(60.0, minutes(day, 75, 100))))


def sleeping_poller(day: Day) -> None:
    """A detached process sleeps, asks a cluster elsewhere every half a minute, and nobody told Jupyter of it."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 2, 6), cpu=0.002, network=300.0))


def slow_child(day: Day) -> None:
    """Detached work that uses steadily as little of a core as the processes of an idle cluster do."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 2, 6), cpu=day.rng.uniform(0.02, 0.07)))


def hidden_reading(day: Day) -> None:
    """A person is there for longer than the limit without a key, and the page is not in sight."""
    end = sit(day, morning(day), minutes(day, 15, 60), "hidden", 15 * HOUR)
    again = end + minutes(day, 62, 85)
    day.need(end, again)
    sit(day, again, minutes(day, 15, 60), "closed")


def terminal_server(day: Day) -> None:
    """A server in a terminal's foreground (`python -m http.server`) is left behind; nobody calls it."""
    start = morning(day)
    end = sit(day, start, minutes(day, 20, 90), left(day))
    day.shells.append(Shell(start + 60, NIGHT))
    day.works.append(Work(end - 600, NIGHT, shell=0, serves=True, cpu=day.rng.uniform(0, 0.004)))


def serving_cell(day: Day) -> None:
    """The same in a cell: `serve_forever()`."""
    end = sit(day, morning(day), minutes(day, 20, 90), left(day))
    day.works.append(Work(end - 600, NIGHT, kernel=0, serves=True, cpu=day.rng.uniform(0, 0.004)))


def polling_cell(day: Day) -> None:
    """A cell that looks each minute for what does not come (`while True: … sleep(60)`) is forgotten over night. It
    cannot be told from one that somebody waits for: it counts as waste."""
    end = sit(day, morning(day), minutes(day, 20, 90), left(day))
    day.works.append(Work(end - 600, NIGHT, kernel=0, cpu=0.003, prints=day.rng.choice([None, 60.0])))


def forgotten_loop(day: Day) -> None:
    """A cell that computes for nobody, for ever. Waste, too."""
    end = sit(day, morning(day), minutes(day, 20, 90), left(day))
    day.works.append(Work(end - 600, NIGHT, kernel=0, cpu=1.0))


def batch_run(day: Day) -> None:
    """`nohup jupyter nbconvert --execute`, papermill: hours in a kernel that Jupyter did not start, mostly silent."""
    end = sit(day, morning(day), minutes(day, 15, 60), left(day))
    task(day, Work(end - 20, end + hours(day, 2, 6), batch=True, cpu=day.rng.choice([0.0, 0.004, 0.03, 0.9])))


def page_alone(day: Day, start: float, end: float) -> None:
    """What the page of an app sends by itself: polls, and a counter now and then."""
    period, jitter = day.rng.choice([1.0, 2.0, 5.0, 10.0, 30.0]), day.rng.choice([0.001, 0.02, 0.1])
    moment, count = start, 0
    while moment < end:
        day.asked.append(
            Asked(moment + day.rng.uniform(0, jitter * period), "/proxy/8050/update", b'{"n": %d}' % count)
        )
        moment, count = moment + period, count + 1


def proxied_app(day: Day) -> None:
    """A person works for hours in an app behind the login, and JupyterLab is not open. Their page polls meanwhile."""
    start = morning(day)
    end = start + hours(day, 1.5, 4)
    day.need(start, end)
    marked, moment = day.rng.random() < 0.5, start
    day.inputs.append((start, False))
    while moment < end:
        path, body = ("form", b"answer=1") if marked else ("update", b'{"click": 1}')
        day.asked.append(Asked(moment, f"/proxy/8050/{path}", body, marked))
        moment += day.rng.lognormvariate(2.5, 0.9) if day.rng.random() < 0.95 else day.rng.uniform(2, 25) * MINUTE
    closes = end if left(day) == "closed" else NIGHT
    day.pages.append(Page(start, closes, ()))
    page_alone(day, start, closes)


def proxied_tab(day: Day) -> None:
    """A tab of an app is forgotten after a short look; it polls over night."""
    start = morning(day)
    end = sit(day, start, minutes(day, 20, 60), "closed")
    day.pages.append(Page(start + 60, NIGHT, ()))
    page_alone(day, start + 60, end + hours(day, 9, 12))


def nightly_job(day: Day) -> None:
    """A line in a crontab for the evening. Nobody keeps the machine for it: the message says that it was due."""
    sit(day, morning(day), minutes(day, 30, 120), left(day))
    due = day.rng.uniform(21, 23) * HOUR
    day.works.append(Work(due, due + 20 * MINUTE, cpu=0.8))


def return_at_the_stop(day: Day) -> None:
    """A person comes back about when the machine stops, some times a day."""
    moment = morning(day)
    while moment < 20 * HOUR:
        end = sit(day, moment, minutes(day, 5, 20), "closed")
        moment = end + minutes(day, 60, 72)
    sit(day, moment, minutes(day, 5, 20), "closed")


ADDED: dict[str, Callable[[Day], None]] = {
    kind.__name__: kind
    for kind in (
        terminal_server,
        serving_cell,
        polling_cell,
        forgotten_loop,
        batch_run,
        proxied_app,
        proxied_tab,
        nightly_job,
        return_at_the_stop,
    )
}
"""Kinds that came after the figures of the others were published, with a sum of their own."""

BEYOND: dict[str, Callable[[Day], None]] = {kind.__name__: kind for kind in (sleeping_poller, slow_child, rare_bursts)}
"""What cannot be told from its opposite by what a machine shows (a forgotten service, an empty chair). Shown beside
the others and not counted; for these there is `nod extend`, and the warning."""

KINDS: dict[str, Callable[[Day], None]] = {
    kind.__name__: kind
    for kind in (
        leave_and_return,
        silent_cell,
        printing_cell,
        detached_child,
        detached_download,
        detached_copy,
        dask_workers,
        gpu_training,
        terminal_silent,
        terminal_printing,
        ssh_only,
        forgotten_ssh,
        input_for_ever,
        heartbeat_thread,
        reading,
        hidden_reading,
        bursts,
        remote_cluster,
        noisy_daemon,
        background_tab,
        visible_tab,
        two_users,
        clock_step,
        monitor_restart,
        missing_heartbeats,
        prober,
        idle_service,
        nobody_came,
        jupyter_hangs,
        reboot,
        short_visits,
        sweep_gap,
        writing,
        short_bursts,
        trickle,
        idle_cluster,
    )
}
