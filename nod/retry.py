"""How long to try again, as a rule: no clock, no network."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 15.0


@dataclass(frozen=True)
class Patience:
    """How much trouble is borne: at most `attempts` requests (None: any number) within `budget` seconds."""

    attempts: int | None
    budget: float

    def delay(self, attempt: int, elapsed: float, retry_after: float | None, jitter: float) -> float | None:
        """Seconds to wait before the next request; None to give up.

        Args:
            attempt: requests made so far, from 1.
            elapsed: seconds since the first of them.
            retry_after: what the server asked for, in seconds; never undercut.
            jitter: 0 to 1; spreads clients that failed together over a quarter more or less.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return None
        # The exponent is bounded: after a night of trying, 2.0 ** attempt would overflow.
        backoff = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt - 1, 10))
        delay = max(backoff * (0.75 + jitter / 2), retry_after or 0.0)
        return delay if elapsed + delay <= self.budget else None


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date, RFC 9110), else None."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment - now).total_seconds()) if moment.tzinfo else None
