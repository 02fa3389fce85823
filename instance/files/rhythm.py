"""Tells what a person does in an app behind the login from what the app's page does by itself.

A browser marks some requests as a person's: a link that was clicked, an address that was typed, a form that was sent.
All others (`fetch`, messages over a websocket) look alike whether a timer or a click caused them. What differs is when
they come, and what is in them:

- A page that runs alone repeats itself. The same request with the same content comes at even intervals (a timer), or
  each time that the server has said something (an answer, or a poll that the server holds open).
- A person is uneven: they think, read, and do several things at once. They also write things that nobody wrote before.

So each kind of request (browser, method, path, form of its content without numbers) is a `Train` of moments. What comes
in an even train, or as an answer, is the page's own, also when single ones of it come late. What is left over is a
person's, unless that is even too, as with a camera whose every picture has another name.

Nothing is concluded from one interval: what is new counts as a person's until it has repeated itself. Where the two
cannot be told apart it counts as a person's.

Knows neither Jupyter nor the clock: times are handed in, in seconds of CLOCK_BOOTTIME.
"""

import itertools
import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

# So many intervals in a row count as even when they differ by at most this share of their median. The fewer there are,
# the closer they must be: by chance, two of a person's are within 5 % once in 25 times. Of 8 and more, the longest and
# the shortest eighth are left out, since a page may stall and a network may.
EVEN = ((2, 0.05), (3, 0.12), (4, 0.2), (8, 0.3), (16, 0.4), (32, 0.5))
# Two tabs of one browser poll in turn: every second interval is even then, or every third or fourth.
EVEN_BY_TURNS = ((2, 0.2), (3, 0.15), (4, 0.12))
LONGEST_EVEN = 32
# Nobody goes on for so many times without a pause of three times what is usual.
STEADY_TIMES, STEADY_SHARE, STEADY_PENALTY = 1000, 3.0, 100
# A page answers what the server sent within this time, which is less than a person needs to read it. What the server
# sends within REPLY_SECONDS of something from the page is a reply to that. A server that sends more often than each
# second tells nothing: everything follows something then.
ANSWER_SECONDS = 0.5
REPLY_SECONDS = 1.0
LEAST_ANSWERS = 8
ANSWERS_SHARE = 0.9
# A poll that the server held open for so long is followed by the next one, within this time.
HELD_SECONDS = 1.0
FOLLOWS_SECONDS = 0.5
# What is left over counts by moments: a page that is opened asks for twenty things at once.
MOMENT_SECONDS = 1.0
# What a page says when it connects (again).
GREETING_SECONDS = 5.0
MOST_TRAINS = 1024
MOST_PLACES = 128
# Of a body or message, this much is looked at.
LONGEST_CONTENT = 1024
LONGEST_WORD = 16
WORDS = re.compile(rb"[\w.:+-]+")
NUMBERS = re.compile(rb"(?:0[\s,]*){2,}")


class Content(NamedTuple):
    """Of what was sent: its beginning, and how long it is in all."""

    head: bytes
    length: int

    @classmethod
    def of(cls, sent: bytes | str) -> "Content":
        """Cheap: called for each message of each websocket."""
        if isinstance(sent, str):
            return cls(sent[:LONGEST_CONTENT].encode("utf-8", "replace"), len(sent))
        return cls(bytes(sent[:LONGEST_CONTENT]), len(sent))

    def form(self) -> bytes:
        """What stays the same when a page repeats itself: without numbers, times and identifiers."""
        if any(byte < 9 or 13 < byte < 32 for byte in self.head[:64]):
            # Not text: what kind of message it is stands in front, as a rule.
            return b"%d %d" % (self.head[0], self.length.bit_length())
        return NUMBERS.sub(b"0", WORDS.sub(_without_number, self.head))


def _without_number(word: re.Match[bytes]) -> bytes:
    found = word[0]
    return found if found.isalpha() and len(found) < LONGEST_WORD else b"0"


def place_of(path: str) -> str:
    """The app that a path leads to: `/proxy/8501`, or the name that an extension serves under."""
    words = path.split("/")[1:]
    count = 1 if words[0] != "proxy" else 3 if words[1:2] == ["absolute"] else 2
    return "/".join(words[:count])


def plain_path(path: str) -> str:
    """A path without identifiers, which another connection would have others of."""
    words = path.split("/")
    return "/".join("*" if len(word) >= 8 and not word.isalpha() and _is_id(word) else word for word in words)


def _is_id(word: str) -> bool:
    return len(word) >= LONGEST_WORD or all(letter in "0123456789abcdefABCDEF-" for letter in word)


class Kind(NamedTuple):
    """What makes two requests the same; `method` is empty for a message."""

    client: str
    method: str
    path: str
    form: int


class Train:
    """Moments of one kind."""

    __slots__ = ("_answers", "_begins", "_ended_at", "_held", "_rests", "_steady")

    def __init__(self) -> None:
        self._begins: deque[float] = deque(maxlen=LONGEST_EVEN + 1)
        # From the end of one to the beginning of the next: even where a page waits for the answer, and then a while.
        self._rests: deque[float] = deque(maxlen=LONGEST_EVEN)
        self._answers: deque[bool] = deque(maxlen=LONGEST_EVEN)
        self._held: deque[bool] = deque(maxlen=LONGEST_EVEN)
        self._ended_at: float | None = None
        self._steady = 0

    def add(self, begin: float, end: float, *, answers: bool) -> None:
        """One that lasted from `begin` to `end`; `answers`: it came right after the server had sent something."""
        if self._begins:
            begin = max(begin, self._begins[-1])
        if self._ended_at is not None:
            rest = begin - self._ended_at
            held = len(self._held) > 0 and self._held[-1]
            answers = answers or (held and 0 <= rest <= FOLLOWS_SECONDS)
            self._rests.append(max(0.0, rest))
            self._go_on(begin - self._begins[-1])
        self._begins.append(begin)
        self._answers.append(answers)
        self._held.append(end - begin >= HELD_SECONDS)
        self._ended_at = end

    def _go_on(self, interval: float) -> None:
        usual = _median(_intervals(self._begins)) if len(self._begins) > 2 else interval
        if usual / STEADY_SHARE <= interval <= usual * STEADY_SHARE:
            self._steady += 1
        else:
            self._steady = max(0, self._steady - STEADY_PENALTY)

    def is_own(self) -> bool:
        """Whether the page does this by itself."""
        if self._steady >= STEADY_TIMES or self.is_answer():
            return True
        return is_even(_intervals(self._begins)) or is_even(list(self._rests)) or _is_even_by_turns(self._begins)

    def is_answer(self) -> bool:
        """Whether it comes when the server has said something, nearly always."""
        return len(self._answers) >= LEAST_ANSWERS and sum(self._answers) >= ANSWERS_SHARE * len(self._answers)

    def slipped_in(self) -> bool:
        """Whether the one before the last came in between two of an even train: somebody did the same by hand."""
        found = _intervals(self._begins)
        if len(found) < 10 or self._answers[-2]:
            return False
        first, second = found[-2:]
        usual = _median(found[:-2])
        if usual < 1.0 or not is_even(found[-10:-2]):
            return False
        return abs(first + second - usual) <= 0.1 * usual and min(first, second) >= 0.15 * usual


def is_even(intervals: Sequence[float]) -> bool:
    """Whether the last ones are as a timer makes them."""
    for count, share in EVEN:
        if len(intervals) < count:
            return False
        if _within(intervals[-count:], share):
            return True
    return False


def _is_even_by_turns(moments: Sequence[float]) -> bool:
    found = list(moments)
    for turns, share in EVEN_BY_TURNS:
        if len(found) < 5 * turns:
            return False
        last = found[-5 * turns :]
        if _within([later - sooner for sooner, later in zip(last, last[turns:])], share):  # noqa: B905 (Python 3.9)
            return True
    return False


def _within(intervals: Sequence[float], share: float) -> bool:
    ordered = sorted(intervals)
    out = len(ordered) // 8
    return ordered[len(ordered) - 1 - out] - ordered[out] <= share * ordered[len(ordered) // 2]


def _intervals(moments: Sequence[float]) -> list[float]:
    found = list(moments)
    return [later - sooner for sooner, later in itertools.pairwise(found)]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


class Place:
    """What is remembered of one browser at one app."""

    def __init__(self) -> None:
        self._singly = Train()
        self._by_moments = Train()
        self._moment_at: float | None = None
        self.heard_at: float | None = None
        self._said: deque[float] = deque(maxlen=LONGEST_EVEN)

    def say(self, at: float) -> None:
        """The server has sent something."""
        if self.heard_at is None or at - self.heard_at > REPLY_SECONDS:
            self._said.append(at)

    def answers(self, at: float) -> bool:
        """Whether something that began then came right after the server had sent something."""
        said = list(self._said)
        if len(said) == LONGEST_EVEN and said[-1] - said[0] < 2 * ANSWER_SECONDS * LONGEST_EVEN:
            return False
        return any(0 <= at - then <= ANSWER_SECONDS for then in reversed(said))

    def is_uneven(self, begin: float, end: float) -> bool:
        """Whether what belongs to no even train is uneven as a whole, one by one and by moments."""
        self._singly.add(begin, end, answers=False)
        if self._moment_at is None or begin - self._moment_at > MOMENT_SECONDS:
            self._by_moments.add(begin, end, answers=False)
            self._moment_at = begin
        return not (self._singly.is_own() or self._by_moments.is_own())


class Traffic:
    """What is remembered of requests and messages."""

    def __init__(self) -> None:
        self._trains: OrderedDict[Kind, Train] = OrderedDict()
        self._places: OrderedDict[tuple[str, str], Place] = OrderedDict()

    def request(self, client: str, method: str, path: str, content: Content, *, begin: float, end: float) -> bool:
        """A request of a page that bears no mark; whether a person caused it (or the one before it)."""
        writes = method != "GET"
        kind = Kind(client, method, plain_path(path), hash(content.form()) if writes else 0)
        return self._is_persons(kind, path, begin, end, writes=writes)

    def message(self, client: str, path: str, content: Content, at: float) -> bool:
        """A message that a page sent over a websocket; whether a person caused it (or the one before it)."""
        return self._is_persons(Kind(client, "", plain_path(path), hash(content.form())), path, at, at, writes=True)

    def said(self, client: str, path: str, at: float) -> None:
        """The server has sent something over a websocket of that path."""
        self._place(client, path).say(at)

    def _is_persons(self, kind: Kind, path: str, begin: float, end: float, *, writes: bool) -> bool:
        place = self._place(kind.client, path)
        answers = place.answers(begin)
        if not answers:
            place.heard_at = end
        new = kind not in self._trains
        train = self._train(kind)
        train.add(begin, end, answers=answers)
        if new and writes and not answers:
            # Nobody wrote this before.
            return True
        if train.slipped_in():
            return True
        return not train.is_own() and place.is_uneven(begin, end)

    def _train(self, kind: Kind) -> Train:
        train = self._trains.pop(kind, None) or Train()
        self._trains[kind] = train
        while len(self._trains) > MOST_TRAINS:
            self._trains.popitem(last=False)
        return train

    def _place(self, client: str, path: str) -> Place:
        key = (client, place_of(path))
        place = self._places.pop(key, None) or Place()
        self._places[key] = place
        while len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)
        return place


class Talk:
    """One websocket: takes what passes at once, and has it judged later, since messages may be many."""

    MOST = 64

    def __init__(self, client: str, path: str, opened_at: float) -> None:
        self.client = client
        self.path = path
        self._opened_at = opened_at
        self._heard: deque[tuple[float, Content]] = deque(maxlen=self.MOST)
        self._said: deque[float] = deque(maxlen=self.MOST)

    def heard(self, message: bytes | str, at: float) -> None:
        """The page has sent this."""
        if at - self._opened_at >= GREETING_SECONDS:
            self._heard.append((at, Content.of(message)))

    def said(self, at: float) -> None:
        """The server has sent something. Of what it says within a tenth of a second, the first counts."""
        if not self._said or at - self._said[-1] >= 0.1:
            self._said.append(at)

    def judge(self, traffic: Traffic) -> float:
        """When a person sent something since this was asked last; 0: not."""
        events = sorted([(at, None) for at in self._said] + [(at, content) for at, content in self._heard], key=_first)
        self._said.clear()
        self._heard.clear()
        acted_at = 0.0
        for at, content in events:
            if content is None:
                traffic.said(self.client, self.path, at)
            elif traffic.message(self.client, self.path, content, at):
                acted_at = at
        return acted_at


def _first(event: tuple[float, Content | None]) -> float:
    return event[0]
