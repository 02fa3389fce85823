"""docs/aws.md says what is: prices of the catalogue, variables of the Makefile, commands and policies that exist."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import boto3
import pytest

from admin import __main__ as admin
from chalicelib.prices import catalogue
from deploy import permissions
from deploy.destroy import FORCE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/aws.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
GB_SECOND = 0.0000166667  # dollars, of Lambda on x86
REGION, DISK_GIB, HOURS_OF_WORK, HOURS_OF_A_MONTH = "us-east-1", 30, 160, 730
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `[a-z0-9]+\.[a-z0-9]+`", line)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_the_prices_of_a_type_are_the_catalogues(row: list[str]) -> None:
    name = row[0].split()[0].strip("`")
    prices = catalogue()
    kind, disk = prices.types[name], prices.disk_month(REGION, DISK_GIB)
    hour, machine = prices.notebook_hour(REGION, name, DISK_GIB), prices.machine_hour(REGION, name)
    assert hour is not None and machine is not None and disk is not None
    months = [f"{machine * hours + disk:.2f}" for hours in (HOURS_OF_WORK, HOURS_OF_A_MONTH)]
    assert row[1:] == [str(kind.vcpus), str(kind.memory_gib), str(kind.gpus or ""), f"{hour:.3f}", *months]


def test_the_disk_of_a_stopped_notebook_costs_what_the_page_says() -> None:
    assert len(ROWS) > 8
    (said,) = re.findall(r"only the disk is left: \$([0-9.]+) a month", PAGE)
    assert Decimal(said) == catalogue().disk_month(REGION, DISK_GIB)


def test_every_variable_of_make_deploy_is_on_the_page_and_no_other() -> None:
    (recipe,) = re.findall(r"^deploy:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    table = PAGE.partition("| variable | meaning")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([A-Z][A-Z_0-9]+)(?:=yes)?`", table)) - {"AWS_REGION"} == set(
        re.findall(r"\$\((\w+)\)", recipe)
    ) - {"BIN"}


def test_every_command_of_the_page_is_one() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, re.MULTILINE))
    said = set(re.findall(r"(?:^|`)make (?:clean\s+)?([a-z]+)", PAGE, re.MULTILINE))
    assert {"deploy", "destroy", "policy"} <= said <= targets
    (line,) = re.findall(r"-m admin (--stage .*?)  +#", PAGE)
    options = admin._parser().parse_args(line.split())
    assert (options.stage, options.region, options.what, options.command) == ("prod", "eu-central-1", "user", "add")
    assert f"FORCE={FORCE}" in PAGE


@pytest.mark.parametrize("page", ["docs/aws.md", "README.md"])
def test_every_command_that_changes_a_deployment_names_its_region(page: str) -> None:
    """In the region of the AWS configuration `make destroy` might find nothing."""
    text = (ROOT / page).read_text(encoding="utf-8")
    said = re.findall(r"make (?:deploy|destroy) STAGE=\S+(.*)", text)
    assert len(said) > 1
    assert not [rest for rest in said if not rest.startswith(" REGION=")]


def test_a_launch_takes_as_long_as_its_functions_do() -> None:
    """After a cold start, by the table in docs/functions.md."""
    longest: dict[int, float] = {}
    rows = re.findall(r"^\| `[a-z_`, ]+` \|(.*)\|$", (ROOT / "docs/functions.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 6
    for row in rows:
        _, _, memory, there, _, why = (cell.strip() for cell in row.split("|"))
        if re.search("part of every launch|a person waits|the link waits", why):
            longest[int(memory)] = max(longest.get(int(memory), 0), float(there.split()[-1]))
    (said,) = re.findall(r"take at most ([\d.]+) s with ([\d.]+) GB, or ([\d.]+) s\s+with ([\d.]+) GB", PAGE)
    seconds = [float(one) for one in said]
    assert {int(seconds[1] * 1024): seconds[0], int(seconds[3] * 1024): seconds[2]} == longest
    (dollars,) = re.findall(r"come to\s+\$([\d.]+),", PAGE)
    dozen = 12 * max(memory / 1024 * time for memory, time in longest.items()) * GB_SECOND
    assert float(dollars) == round(dozen, 4)


def test_the_policies_of_the_page_are_those_that_are_written() -> None:
    names = permissions.policies(boto3.Session(), "prod", "eu-central-1", "123456789012")
    assert set(re.findall(r"build/policy/(nod-prod-[a-z-]+)\.json", PAGE)) == {f"nod-prod-{name}" for name in names}


def test_pages_that_it_leads_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
