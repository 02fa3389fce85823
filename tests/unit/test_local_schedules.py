"""When a schedule of EventBridge is due."""

from datetime import UTC, datetime

import pytest

from local.schedules import following

NOW = datetime(2026, 11, 22, 20, 15, 30, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("rate(1 minute)", datetime(2026, 11, 22, 20, 16, 30, tzinfo=UTC)),
        ("rate(2 hours)", datetime(2026, 11, 22, 22, 15, 30, tzinfo=UTC)),
        ("rate(1 day)", datetime(2026, 11, 23, 20, 15, 30, tzinfo=UTC)),
        ("cron(0/15 * * * ? *)", datetime(2026, 11, 22, 20, 30, tzinfo=UTC)),
        ("cron(16 20 * * ? *)", datetime(2026, 11, 22, 20, 16, tzinfo=UTC)),
        ("cron(15 20 * * ? *)", datetime(2026, 11, 23, 20, 15, tzinfo=UTC)),
        ("cron(0 12 ? * MON-FRI *)", datetime(2026, 11, 23, 12, 0, tzinfo=UTC)),
        ("cron(0 0 1 JAN ? 2028)", datetime(2028, 1, 1, tzinfo=UTC)),
        ("cron(0,30 8 ? * 1 *)", datetime(2026, 11, 29, 8, 0, tzinfo=UTC)),
    ],
)
def test_the_next_time(expression: str, due: datetime) -> None:
    assert following(expression, NOW) == due


@pytest.mark.parametrize(
    "expression",
    ["rate(0 minutes)", "rate(5 weeks)", "every day", "cron(60 * * * ? *)", "cron(0 0 30 FEB ? *)", "cron(0 0 * * ?)"],
)
def test_what_is_no_schedule_is_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match=r"rate|cron|out of|never"):
        following(expression, NOW)
