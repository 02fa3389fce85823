"""Activity monitor: looks at the machine every few seconds and writes what it saw into the instance's heartbeat row.

Runs as nod-monitor.service with the system's python3 and nothing else, so that it does not depend on what
users do to Anaconda. It asks Jupyter for a page that Jupyter does not count as activity. What it cannot find
out it says so or leaves out of the row: unknown is not idle.

Durations are of CLOCK_BOOTTIME, which nobody can set. What must outlive the monitor is kept in /run, which a full
disk does not fill.

This folder is a package on the machine (/opt/nod/nod_monitor); nod-monitor.py starts it.
"""

import contextlib
import datetime
import email.utils
import hashlib
import hmac
import http.client
import json
import os
import random
import resource
import signal
import socket
import ssl
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .activity import ACTIVITY, Activity, number
from .looks import Looker, Space, boottime, home_space, run
from .notebook_probe import KEY, NOTEBOOK, ask
from .server_status import ServerStatus

VERSION = "2"
# Durations that follow the deployment's minute (NOD_MINUTE_SECONDS): a minute here has 60 seconds.
SAMPLE_SECONDS = 5.0
PERIOD_SECONDS = 60.0
QUIET_PERIOD_SECONDS = 240.0
PROBE_SECONDS = 15.0
# Use that begins after so long without any is told at once: a stop may be near.
AWAY_SECONDS = 60.0
DEAD_MAN_SECONDS = 3 * 3600.0
# As chalicelib/idleness.py has it: for so long, or an hour over the limit, what cannot be told counts as use.
UNKNOWN_SECONDS = 4 * 3600.0
UNKNOWN_MORE_SECONDS = 3600.0
DEFAULT_LIMIT_SECONDS = 3600.0
# Nothing comes more often than this, whatever a minute is.
LEAST_SECONDS = 1.0
LONGEST_SECONDS = 31 * 86400.0
# A request that is signed for another time than DynamoDB's is refused; it allows 5 minutes, or more.
SKEW_SECONDS = 240.0
# OpenSSL's verdicts "not yet valid" and "has expired", and its flag to leave times alone (X509_V_…, not in `ssl`).
OUT_OF_TIME = (9, 10)
NO_CHECK_TIME = 0x200000
# A notebook that has not answered for so long does not start any more: it is asked as one that answers.
STARTING_SECONDS = 600.0
# The user's crontab and timers are looked at so often.
JOBS_SECONDS = 600.0
# A certificate can end while nothing else changes.
VALIDITY_SECONDS = 3600.0
# The table forgets the row of a machine that has not written for so long: it is gone, or stopped, and starts anew.
KEPT_SECONDS = 90 * 24 * 3600
RETRY_SECONDS = (2.0, 5.0, 10.0, 20.0)
TIMEOUT_SECONDS = 5.0
IMDS = ("169.254.169.254", 80)
ACCEPTED = Path("/run/nod-monitor/accepted")
STATE = Path("/run/nod-monitor/state.json")

TIME = "%Y-%m-%dT%H:%M:%SZ"
# Tells when the user's own jobs are due (due_jobs.py).
DUE_JOBS = ("/usr/bin/python3", "-I", "/opt/nod/due_jobs.py")

Values = Mapping[str, Any]
Jobs = list[dict[str, str]]


class HeartbeatError(Exception):
    """The heartbeat was not accepted; the text says why. `date`: what time it is, by who refused it."""

    def __init__(self, text: str, date: datetime.datetime | None = None) -> None:
        super().__init__(text)
        self.date = date


class Written(NamedTuple):
    """The row after a heartbeat, and what time it is by DynamoDB."""

    row: dict[str, Any]
    date: datetime.datetime | None


class Credentials(NamedTuple):
    """The instance role's credentials, as the metadata service hands them out."""

    key: str
    secret: str
    token: str


class Instance(NamedTuple):
    """What the metadata service says about the instance."""

    arn: str
    address: str | None
    credentials: Credentials


class Probe(NamedTuple):
    """What the notebook's port answered: whether it was our server, the certificate it showed (DER), and whether it was
    another program."""

    answers: bool
    certificate: bytes | None
    foreign: bool = False

    @property
    def certificate_sha256(self) -> str | None:
        """As browsers show it."""
        return hashlib.sha256(self.certificate).digest().hex(":").upper() if self.certificate else None


def partition(region: str) -> tuple[str, str]:
    """Partition and domain of a Region (they stand in ARNs and host names)."""
    if region.startswith("cn-"):
        return "aws-cn", "amazonaws.com.cn"
    if region.startswith("us-gov-"):
        return "aws-us-gov", "amazonaws.com"
    return "aws", "amazonaws.com"


class Metadata:
    """The instance metadata service, version 2. Errors are OSError, HTTPException, ValueError or KeyError."""

    def __init__(self, address: tuple[str, int] = IMDS) -> None:
        self._address = address

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read(65536).decode()
        finally:
            connection.close()
        if response.status == http.client.NOT_FOUND:
            return None
        if response.status != http.client.OK:
            raise OSError(f"the metadata service answered {response.status} to {path}")
        return body

    def instance(self) -> Instance:
        """Asked anew for each heartbeat: credentials expire, and addresses come and go."""
        token = self._ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}) or ""

        def get(path: str) -> str | None:
            return self._ask("GET", f"/latest/{path}", {"X-aws-ec2-metadata-token": token})

        identity = json.loads(get("dynamic/instance-identity/document") or "{}")
        role = (get("meta-data/iam/security-credentials/") or "").split("\n")[0].strip()
        if not role:
            raise HeartbeatError("the instance has no role")
        keys = json.loads(get(f"meta-data/iam/security-credentials/{role}") or "{}")
        region = identity["region"]
        return Instance(
            f"arn:{partition(region)[0]}:ec2:{region}:{identity['accountId']}:instance/{identity['instanceId']}",
            (get("meta-data/public-ipv4") or get("meta-data/local-ipv4") or "").strip() or None,
            Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"]),
        )


def sign(
    body: bytes,
    headers: dict[str, str],
    *,
    region: str,
    host: str,
    credentials: Credentials,
    now: datetime.datetime,
) -> dict[str, str]:
    """Headers of a signed POST to DynamoDB's path `/` (Signature Version 4).

    `now` is UTC; `headers` have lower-case names. The answer holds them, `host`, the two `x-amz-` ones of
    signing, and `authorization`.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "host": host, "x-amz-date": stamp, "x-amz-security-token": credentials.token}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in sorted(signed))
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{stamp[:8]}/{region}/dynamodb/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return signed


def attribute(value: Any) -> dict[str, Any]:
    """A value as DynamoDB's API has it."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": str(value)}
    if isinstance(value, Mapping):
        return {"M": {name: attribute(part) for name, part in value.items()}}
    if isinstance(value, list):
        return {"L": [attribute(part) for part in value]}
    return {"S": str(value)}


def plain(answer: Any) -> str | float | None:
    """A text or number of DynamoDB's API; None for everything else."""
    if isinstance(answer, dict):
        if isinstance(answer.get("S"), str):
            return str(answer["S"])
        with contextlib.suppress(TypeError, ValueError):
            return float(answer["N"]) if "N" in answer else None
    return None


def update_item(table: str, arn: str, values: Values) -> dict[str, Any]:
    """Input of UpdateItem for a heartbeat; a value of None is removed from the row."""
    known = {name: value for name, value in values.items() if value is not None}
    unknown = [name for name, value in values.items() if value is None]
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in known)
    if unknown:
        expression += " REMOVE " + ", ".join(f"#{name}" for name in unknown)
    return {
        "TableName": table,
        "Key": {"id": {"S": arn}},
        "UpdateExpression": expression,
        "ExpressionAttributeNames": {f"#{name}": name for name in values},
        "ExpressionAttributeValues": {f":{name}": attribute(value) for name, value in known.items()},
        # What the control plane wrote beside it: the answer to the heartbeat.
        "ReturnValues": "ALL_NEW",
    }


class HeartbeatTable:
    """The table of heartbeats in DynamoDB. `endpoint` is the AWS SDKs' AWS_ENDPOINT_URL, if set."""

    def __init__(self, table: str, region: str, endpoint: str | None) -> None:
        self._table = table
        self._region = region
        self._endpoint = urllib.parse.urlsplit(endpoint or f"https://dynamodb.{region}.{partition(region)[1]}")
        self._tls = ssl.create_default_context() if self._endpoint.scheme == "https" else None
        self._met = False

    def write(self, instance: Instance, values: Values, now: datetime.datetime) -> Written:
        """Writes the row, signed for `now`; HeartbeatError with DynamoDB's words when it refuses."""
        body = json.dumps(update_item(self._table, instance.arn, values)).encode()
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "x-amz-target": "DynamoDB_20120810.UpdateItem",
        }
        signed = sign(
            body,
            headers,
            region=self._region,
            host=self._endpoint.netloc,
            credentials=instance.credentials,
            now=now,
        )
        try:
            return self._post(body, signed, self._tls)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code not in OUT_OF_TIME or (self._met and _clock_is_right(now)):
                raise
        # By this machine's clock DynamoDB's certificate has ended or does not count yet, and it is the clock that may
        # be wrong, by years. Issuer and name are checked as ever, the certificate's time by the answer's Date. Who
        # stands in between with an old certificate could say any, so not where the clock is known to be right.
        context = ssl.create_default_context()
        context.verify_flags |= NO_CHECK_TIME
        return self._post(body, signed, context, clock_counts=False)

    def _post(
        self, body: bytes, signed: dict[str, str], tls: ssl.SSLContext | None, *, clock_counts: bool = True
    ) -> Written:
        host, port = self._endpoint.hostname or "", self._endpoint.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=tls)
            if tls
            else http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        )
        try:
            connection.connect()
            self._met = self._met or clock_counts
            shown = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
            connection.request("POST", "/", body, signed)
            response = connection.getresponse()
            answer = response.read(524288).decode("utf-8", "replace")
        finally:
            connection.close()
        date = http_date(response.headers.get("Date"))
        if not clock_counts and not (shown and date and _holds(shown, date)):
            raise HeartbeatError("the certificate of DynamoDB is not in its time")
        if response.status != http.client.OK:
            raise HeartbeatError(f"DynamoDB answered {response.status}: {answer[:300]}", date)
        row = json.loads(answer)
        found = row.get("Attributes") if isinstance(row, dict) else None
        return Written(found if isinstance(found, dict) else {}, date)


def _clock_is_right(now: datetime.datetime) -> bool:
    """Whether the machine's clock is near enough to what DynamoDB said the time is."""
    return abs((utc_now() - now).total_seconds()) < SKEW_SECONDS


def _holds(certificate: Mapping[str, Any], date: datetime.datetime) -> bool:
    """Whether a certificate, as `getpeercert` gives it, is in its time at `date`."""
    begins, ends = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
    return begins <= date.timestamp() <= ends


def http_date(text: str | None) -> datetime.datetime | None:
    """A Date header's time; None for what is none."""
    try:
        found = email.utils.parsedate_to_datetime(text or "")
    except (TypeError, ValueError, OverflowError):
        return None
    # One from which days can be taken away and added.
    if not 2000 <= found.year <= 9000:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)  # noqa: UP017 (Python 3.10)


def probe(address: tuple[str, int] = NOTEBOOK, timeout: float = TIMEOUT_SECONDS, key: Path = KEY) -> Probe:
    """Asks the notebook's port whether it is our server that answers; `timeout` seconds for all of it."""
    answer = ask(address, timeout, key)
    return Probe(answer.ours, answer.certificate, answer.foreign)


def is_valid(certificate: bytes, name: str, address: tuple[str, int] = NOTEBOOK) -> bool:
    """Whether a browser that trusts this very certificate would take it for `name`: in its time, and for that name.

    Found out by a connection, since that is how it must be right. OSError when there is no connection.
    """
    context = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(certificate))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with (
            socket.create_connection(address, TIMEOUT_SECONDS) as plain_connection,
            context.wrap_socket(plain_connection, server_hostname=name),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False


def notify(message: str) -> None:
    """Tells systemd (sd_notify) that we started or live."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect("\0" + path[1:] if path.startswith("@") else path)
            connection.sendall(message.encode())


def log(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def power_off() -> None:
    """As `systemctl poweroff` does, by the signal that systemd(1) names for it, which needs no bus."""
    os.kill(1, signal.SIGRTMIN + 4)


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 (Python 3.10)


class Timekeeper:
    """What time it is: the machine's clock until DynamoDB has answered, then DynamoDB's, carried on by CLOCK_BOOTTIME.

    Who is root may set the machine's clock, and DynamoDB takes no request that is signed for another time than its own.
    So that a heartbeat is not lost by a clock that steps, each answer's Date counts in its place.
    """

    def __init__(self, wall: Callable[[], datetime.datetime], clock: Callable[[], float]) -> None:
        self._wall = wall
        self._clock = clock
        self._booted: datetime.datetime | None = None

    def now(self) -> datetime.datetime:
        """UTC; of the moment."""
        return self._wall() if self._booted is None else self._booted + datetime.timedelta(seconds=self._clock())

    def hear(self, date: datetime.datetime | None) -> float:
        """Takes the time of an answer that has just come; by how many seconds that moved ours."""
        if date is None:
            return 0.0
        before = self.now()
        self._booted = date - datetime.timedelta(seconds=self._clock())
        return (date - before).total_seconds()


def due_jobs() -> Jobs:
    """The user's next jobs, as the program of ours prints them; none when it cannot tell."""
    try:
        found = json.loads(run(DUE_JOBS) or b"[]")
        return [{name: str(job[name]) for name in ("at", "what", "name")} for job in found]
    except (ValueError, KeyError, TypeError):
        return []


class DeadMan:
    """Decides to end a machine that nobody uses and nobody watches: the sweep that should do it is dead.

    Knows what the control plane answered, and no clock: `now` is of CLOCK_BOOTTIME.
    """

    def __init__(self, started_at: float, minute: float = 60.0) -> None:
        self._scale = minute / 60
        self.limit: float | None = None
        self.confirmed: str | float | None = None
        self.confirmed_at = started_at
        self.hold_until: str | None = None
        self.hold_at = 0.0

    def hear(self, row: Mapping[str, Any], now: float, wall: datetime.datetime) -> None:
        """Takes the row that a heartbeat returned; `wall` is what the machine believes the time is."""
        confirmed = plain(row.get("confirmed"))
        if confirmed is not None and confirmed != self.confirmed:
            self.confirmed, self.confirmed_at = confirmed, now
        limit = plain(row.get("limit_seconds"))
        with contextlib.suppress(ValueError):
            seconds = number(float(limit)) if limit is not None else None
            self.limit = None if seconds is None else min(max(seconds, 1.0), LONGEST_SECONDS)
        hold = plain(row.get("hold_until"))
        if hold != self.hold_until:
            # Measured when it is first seen: a clock that is set later moves it no more.
            self.hold_until = hold if isinstance(hold, str) else None
            self.hold_at = now + _seconds_until(self.hold_until, wall)

    def patience(self) -> float:
        """Seconds of idleness, and of silence of the control plane, until the end."""
        return 2 * self._limit() + DEAD_MAN_SECONDS * self._scale

    def unknown_cap(self) -> float:
        """For how many seconds after the last use a signal that cannot be told counts as use."""
        return max(UNKNOWN_SECONDS * self._scale, self._limit() + UNKNOWN_MORE_SECONDS * self._scale)

    def _limit(self) -> float:
        return self.limit or DEFAULT_LIMIT_SECONDS * self._scale

    def is_over(self, idle_seconds: float, now: float) -> bool:
        """Whether the machine must end now."""
        patience = self.patience()
        return idle_seconds >= patience and now - self.confirmed_at >= patience and now >= self.hold_at

    def is_due(self, idle_seconds: float) -> bool:
        """Whether the sweep may stop it now: from the limit to twice that, after which something else keeps it."""
        return self._limit() <= idle_seconds <= 2 * self._limit()

    def state(self) -> dict[str, Any]:
        """What to keep over a restart of the monitor (JSON)."""
        return {
            "limit": self.limit,
            "confirmed": self.confirmed,
            "confirmed_at": self.confirmed_at,
            "hold_until": self.hold_until,
            "hold_at": self.hold_at,
        }

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Takes up a kept state of this boot."""
        self.limit = number(state.get("limit"))
        confirmed, hold = state.get("confirmed"), state.get("hold_until")
        self.confirmed = confirmed if isinstance(confirmed, str | float) else None
        self.confirmed_at = min(now, number(state.get("confirmed_at")) or now)
        self.hold_until = hold if isinstance(hold, str) else None
        self.hold_at = min(now + LONGEST_SECONDS, number(state.get("hold_at")) or 0.0)


def _seconds_until(text: str | None, wall: datetime.datetime) -> float:
    """How far away a UTC time is; 0 for what is none, at most a month."""
    try:
        until = datetime.datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.timezone.utc)  # noqa: UP017 (Python 3.10)
    return min(LONGEST_SECONDS, max(0.0, (until - wall).total_seconds()))


class Rhythm:
    """When the next heartbeat is due."""

    def __init__(self, minute: float = 60.0) -> None:
        self._scale = minute / 60
        self._failures = 0
        self._due: float | None = None
        self._sent: Any = None

    @property
    def failures(self) -> int:
        """How many heartbeats failed in a row."""
        return self._failures

    def is_due(self, now: float, urgent: Any, active: bool, *, began: bool = False) -> bool:
        """Whether to send now. What is `urgent` is told at once when it changes, unless the last one failed.

        While something is `active` one comes each minute, else every four minutes. `began`: somebody is back, which is
        told at once, too.
        """
        if self._due is None:
            return True
        if self._failures:
            return now >= self._due
        if began:
            return True
        quiet = (QUIET_PERIOD_SECONDS - PERIOD_SECONDS) * self._scale
        return urgent != self._sent or now >= self._due + (0.0 if active else quiet)

    def sent(self, started: float, urgent: Any) -> None:
        """One was accepted that began at `started`."""
        self._failures, self._sent = 0, urgent
        self._due = started + max(LEAST_SECONDS, PERIOD_SECONDS * self._scale)

    def failed(self, now: float, jitter: float) -> None:
        """One was not accepted: soon again, then ever later; `jitter` (0 to 1) keeps machines out of step."""
        self._failures += 1
        wait = PERIOD_SECONDS * self._scale * (0.75 + jitter / 4)
        if self._failures <= len(RETRY_SECONDS):
            wait = min(wait, RETRY_SECONDS[self._failures - 1] * (0.5 + jitter / 2))
        self._due = now + max(LEAST_SECONDS, wait)


class Monitor:
    """The whole of it. `tick` does what is due now; clocks, parties outside and the end are handed in."""

    def __init__(
        self,
        looker: Looker,
        metadata: Metadata,
        table: HeartbeatTable,
        boot_id: str,
        *,
        minute: float = 60.0,
        state: Path = STATE,
        accepted: Path = ACCEPTED,
        notebook: tuple[str, int] = NOTEBOOK,
        clock: Callable[[], float] = boottime,
        wall: Callable[[], datetime.datetime] = utc_now,
        end: Callable[[], None] = power_off,
        space: Callable[[], Space | None] = home_space,
        due_jobs: Callable[[], Jobs] = list,
        server: ServerStatus | None = None,
    ) -> None:
        self._looker = looker
        self._server = server or ServerStatus()
        self._status: dict[str, Any] = {}
        self._told_server = True
        self._metadata = metadata
        self._table = table
        self._boot_id = boot_id
        self._scale = minute / 60
        self._state = state
        self._accepted = accepted
        self._notebook = notebook
        self._clock = clock
        self._time = Timekeeper(wall, clock)
        self._end = end
        self._space = space
        self._due_jobs = due_jobs
        self._jobs: Jobs = []
        self._jobs_at: float | None = None
        started = clock()
        self.activity = Activity(started)
        self.dead_man = DeadMan(started, minute)
        self.rhythm = Rhythm(minute)
        self._beat = 0
        self._probe = Probe(False, None)
        self._probed_at: float | None = None
        self._looked_at: float | None = None
        self._asked_at: float | None = None
        self._address: str | None = None
        self._answered_at = started
        self._validity: tuple[tuple[bytes, str], float] | None = None
        self._was_over: float | None = None
        self._told: Any = None
        # How long nothing had been active, and when it last was, as the last accepted heartbeat had it.
        self._told_idle = 0.0
        self._told_used_at = 0.0
        self._restore()

    def begin(self) -> None:
        """The look that all amounts are counted from."""
        self._looker.look()

    def seconds_to_next(self) -> float:
        """Until the next tick: seconds, and one while the notebook starts, so that its first answer is told at once."""
        return LEAST_SECONDS if self._starts(self._clock()) else self._pace(SAMPLE_SECONDS)

    def tick(self) -> None:
        """Looks at the machine, tells about it if that is due, and ends it if nobody else does."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= self._pace(SAMPLE_SECONDS) - LEAST_SECONDS / 2:
            self.activity.observe(self._looker.look())
            self._looked_at = now
        if self._probed_at is None or self._starts(now) or now - self._probed_at >= self._pace(PROBE_SECONDS):
            self._look_at_notebook(now)
        if self._asked_at is None or now - self._asked_at >= self._pace(PERIOD_SECONDS):
            self._look_at_address(now)
        now = self._clock()
        server = (self._status.get("mode"), self._status.get("code"))
        urgent = (self._probe.answers, self._probe.certificate, self._address, server)
        if self.rhythm.is_due(now, urgent, self._is_active(now), began=self._begins(now)):
            self._try_to_tell(now, urgent)
        self._keep()
        self._end_if_over(self._clock())

    def _pace(self, seconds: float) -> float:
        return max(LEAST_SECONDS, seconds * self._scale)

    def _starts(self, now: float) -> bool:
        """Whether the notebook may answer any moment: it has not for a while that a start may take."""
        return not self._probe.answers and now - self._answered_at < STARTING_SECONDS

    def _look_at_notebook(self, now: float) -> None:
        self._probe = probe(self._notebook)
        self._probed_at = now
        self._status = self._server.look(now, answers=self._probe.answers, foreign=self._probe.foreign)
        if self._probe.answers:
            self._answered_at = now

    def _look_at_address(self, now: float) -> None:
        """An address may be another without a boot (an Elastic IP)."""
        self._asked_at = now
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError, HeartbeatError):
            self._address = self._metadata.instance().address

    def _is_active(self, now: float) -> bool:
        """Whether something is active, or another than the last heartbeat said."""
        recent = max(PERIOD_SECONDS * self._scale, 2 * LEAST_SECONDS)
        if any(age < recent for age in self.activity.ages(now).values()) or self._told != self._changing(now):
            return True
        # Only a heartbeat that shows the whole limit stops it: one that came minutes after it would make the stop late.
        idle = self.activity.idle_seconds(now, self.dead_man.unknown_cap())
        return self.dead_man.is_due(idle)

    def _begins(self, now: float) -> bool:
        """Whether use has begun of which the last heartbeat did not know, after a while without any.

        Comes true at most once in that while, since the heartbeat that it causes tells of use.
        """
        away = self._pace(AWAY_SECONDS)
        return self._told_idle >= away and self._used_at(now) - self._told_used_at >= away

    def _used_at(self, now: float) -> float:
        ages = self.activity.ages(now)
        return now - min((ages[name] for name in ACTIVITY if name in ages), default=now)

    def _changing(self, now: float) -> Any:
        facts = self.activity.facts(now)
        return [facts.get(name) for name in ("kernels", "terminals", "browsers")], self.activity.unknown(now)

    def _try_to_tell(self, now: float, urgent: tuple[Any, ...]) -> None:
        """One heartbeat. Only the first failure and the recovery go into the journal, not each minute's."""
        try:
            self.tell(now)
        except (OSError, http.client.HTTPException, ValueError, KeyError, HeartbeatError) as error:
            self.rhythm.failed(self._clock(), random.random())  # noqa: S311
            failures = self.rhythm.failures
            if failures in (1, len(RETRY_SECONDS) + 1):
                log(f"heartbeat failed ({failures} in a row): {type(error).__name__}: {error}")
        else:
            if self.rhythm.failures:
                log(f"heartbeat accepted again after {self.rhythm.failures} failures")
            self.rhythm.sent(now, (*urgent[:2], self._address, *urgent[3:]))
            self._told = self._changing(now)
            self._told_used_at = self._used_at(now)
            self._told_idle = now - self._told_used_at
            self._told_server = bool(self._status)
            with contextlib.suppress(OSError):
                self._accepted.write_text(f"{self._clock():.0f}\n")

    def tell(self, now: float) -> None:
        """Writes the row and hears what the control plane says. Errors as of Metadata, or HeartbeatError."""
        instance = self._metadata.instance()
        self._address = instance.address
        self._beat += 1
        try:
            written = self._write(instance, now)
        except HeartbeatError as error:
            # Whatever its words are: what was signed for another time may be taken when it is signed for the right one.
            moved = self._time.hear(error.date)
            if abs(moved) < SKEW_SECONDS:
                raise
            log(f"by DynamoDB's clock it is {moved:+.0f} s: its time counts from now on")
            written = self._write(instance, now)
        self._time.hear(written.date)
        self.dead_man.hear(written.row, self._clock(), self._time.now())

    def _write(self, instance: Instance, now: float) -> Written:
        at = self._time.now()
        return self._table.write(instance, self.values(instance.address, now, at), at)

    def values(self, address: str | None, now: float, wall: datetime.datetime) -> dict[str, Any]:
        """The row's attributes; None: unknown."""
        facts = self.activity.facts(now)
        if not self._looker.has_gpu:
            facts.pop("gpu_percent", None)
        facts["busiest"] = list(self._looker.busiest)
        space = self._space()
        if space is not None:
            facts["disk"] = {"free_mib": space.free_mib, "size_mib": space.size_mib}
        at = wall.strftime(TIME)
        jobs = self._jobs_due(now, at)
        if jobs:
            facts["due_jobs"] = jobs
        return {
            "at": at,
            "boot_id": self._boot_id,
            "beat": self._beat,
            "uptime": int(now),
            "answers": self._probe.answers,
            # Taken out of the row again once there is nothing to tell.
            **({"server": self._status or None} if self._status or self._told_server else {}),
            "address": address,
            "certificate_sha256": self._probe.certificate_sha256,
            "certificate_valid": self._is_valid(address, now),
            "version": VERSION,
            "ages": self.activity.ages(now),
            "facts": facts,
            "unknown": self.activity.unknown(now),
            "expires_at": int(wall.timestamp()) + KEPT_SECONDS,
        }

    def _jobs_due(self, now: float, at: str) -> Jobs:
        """The user's jobs that are due next. Asked now and then, and when one of them is past."""
        passed = any(job["at"] <= at for job in self._jobs)
        if passed or self._jobs_at is None or now - self._jobs_at >= JOBS_SECONDS * self._scale:
            self._jobs, self._jobs_at = self._due_jobs(), now
        return [job for job in self._jobs if job["at"] > at]

    def _is_valid(self, address: str | None, now: float) -> bool | None:
        """Whether the shown certificate is good for the address. A good one is believed until one of them changes or an
        hour is over; a bad one is looked at each time: it may have been the moment."""
        certificate = self._probe.certificate
        if certificate is None or address is None:
            return None
        of = (certificate, address)
        known, since = self._validity or (None, now)
        if known == of and now - since < VALIDITY_SECONDS * self._scale:
            return True
        try:
            valid = is_valid(certificate, address, self._notebook)
        except (OSError, ValueError):
            return None
        self._validity = (of, now) if valid else None
        return valid

    def _end_if_over(self, now: float) -> None:
        idle = self.activity.idle_seconds(now, self.dead_man.unknown_cap())
        if not self.dead_man.is_over(idle, now) or (self._was_over is not None and now - self._was_over < 300):
            return
        self._was_over = now
        log(
            f"idle for {idle:.0f} s, and nothing heard from the control plane for "
            f"{now - self.dead_man.confirmed_at:.0f} s: powering off"
        )
        with contextlib.suppress(OSError):
            self._end()

    def _keep(self) -> None:
        kept = {
            "boot_id": self._boot_id,
            "beat": self._beat,
            "activity": self.activity.state(),
            "dead_man": self.dead_man.state(),
        }
        new = self._state.with_suffix(".new")
        # Without it a restart begins anew, which is a longer life for the machine and no danger.
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(kept))
            new.replace(self._state)

    def _restore(self) -> None:
        try:
            kept = json.loads(self._state.read_text())
            if kept["boot_id"] != self._boot_id:
                return
            self._beat = int(kept["beat"])
            self.activity.restore(kept["activity"])
            self.dead_man.restore(kept["dead_man"], self._clock())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return


def serve(monitor: Monitor, sleep: Callable[[float], None] = time.sleep) -> None:
    """Ticks for ever, after a first look that the amounts are counted from."""
    monitor.begin()
    notify("READY=1")
    while True:
        sleep(monitor.seconds_to_next())
        notify("WATCHDOG=1")
        monitor.tick()


def minute_of(environment: Mapping[str, str]) -> float:
    """How many seconds a minute lasts: 60, unless the local cloud lets a day pass faster."""
    try:
        given = float(environment.get("NOD_MINUTE_SECONDS", "60"))
    except ValueError:
        return 60.0
    return given if 0 < given <= 60 else 60.0


def _cpu_seconds() -> float:
    """Of this process and of those that it has started and seen end."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def measure(seconds: float, proc: str = "/proc") -> dict[str, float]:
    """What looking costs: samples as the service does for so many seconds, and says how much of a core it took.

    With the programs that looking starts. Not with probes and heartbeats.
    """
    looker = Looker(proc=proc)
    activity = Activity(boottime())
    began, used = time.monotonic(), _cpu_seconds()
    looks = 0
    while time.monotonic() - began < seconds:
        activity.observe(looker.look())
        looks += 1
        time.sleep(min(SAMPLE_SECONDS, max(0.0, seconds - (time.monotonic() - began))))
    elapsed, cpu = time.monotonic() - began, _cpu_seconds() - used
    lines = Path("/proc/self/status").read_text().splitlines()
    rss = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return {"seconds": elapsed, "looks": looks, "cpu_seconds": cpu, "core_percent": 100 * cpu / elapsed, "rss_kib": rss}


def main(settings: Path) -> None:
    """The service. `settings` is a JSON file with `table` and `region`."""
    given = json.loads(settings.read_text())
    minute = minute_of(os.environ)
    table = HeartbeatTable(given["table"], given["region"], os.environ.get("AWS_ENDPOINT_URL"))
    # Set by the unit: the boot that systemd knows, 32 hexadecimal digits.
    serve(Monitor(Looker(minute), Metadata(), table, os.environ["NOD_BOOT_ID"], minute=minute, due_jobs=due_jobs))
