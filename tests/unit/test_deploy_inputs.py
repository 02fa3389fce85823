"""What the deploying person says: what is taken, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy import inputs
from deploy.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["prod", "a", "team-7", "a" * 20])
def test_a_stage_that_fits_every_name_is_taken(name: str) -> None:
    assert inputs.stage(name) == name


@pytest.mark.parametrize("name", ["", "Prod", "7team", "-a", "a_b", "a.b", "a" * 21, "prod ", "prod\n", "prød"])
def test_a_stage_that_aws_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="STAGE"):
        inputs.stage(name)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("", None),
        (" , ", None),
        ("198.51.100.7", ("198.51.100.7/32",)),
        ("198.51.100.0/24,203.0.113.7/32", ("198.51.100.0/24", "203.0.113.7/32")),
        ("198.51.100.0/24 198.51.100.0/24", ("198.51.100.0/24",)),
        ("10.0.0.0/8", ("10.0.0.0/8",)),
        ("2001:DB8::/32", ("2001:db8::/32",)),
    ],
)
def test_blocks_are_taken_in_their_usual_form(text: str, blocks: tuple[str, ...] | None) -> None:
    assert inputs.cidrs(text) == blocks


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "198.51.100.7/32,0.0.0.0/0", "64.0.0.0/7", "2000::/3", "2001::/31"],
)
def test_the_world_is_let_in_only_when_that_is_said_twice(text: str) -> None:
    for word in ("", "no", "true", "YES"):
        with pytest.raises(InputError, match="OPEN_TO_THE_WORLD=yes"):
            inputs.cidrs(text, word)
    assert inputs.cidrs(text, "yes") == tuple(text.split(","))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("198.51.100.7/24", "Did you mean 198.51.100.0/24"),
        ("300.1.1.1/32", "no block"),
        ("198.51.100.0/33", "no block"),
        ("mynetwork", "no block"),
        ("127.0.0.1/32", "nobody calls"),
        ("224.0.0.0/8", "nobody calls"),
        ("169.254.0.0/16", "nobody calls"),
        ("0.0.0.0", "nobody calls"),
        ("0.0.0.0/8", "nobody calls"),
        ("240.0.0.0/8", "nobody calls"),
        ("255.255.255.255", "nobody calls"),
        ("::", "nobody calls"),
        ("::ffff:0:0/96", "nobody calls"),
        ("::ffff:198.51.100.7", "nobody calls"),
        ("fe80::/64", "nobody calls"),
        (",".join(f"198.51.100.{n}/32" for n in range(11)), "at most 10"),
    ],
)
def test_a_wrong_block_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        inputs.cidrs(text)


def test_the_second_word_does_not_let_a_wrong_block_in() -> None:
    with pytest.raises(InputError):
        inputs.cidrs("198.51.100.7/24", "yes")


def test_subnets_keep_their_order() -> None:
    assert inputs.subnets("") is None
    assert inputs.subnets("subnet-0bbbbbbb, subnet-0aaaaaaa") == ("subnet-0bbbbbbb", "subnet-0aaaaaaa")


@pytest.mark.parametrize("text", ["vpc-0aaaaaaa", "subnet-XYZ", "subnet-0aaaaaaa,subnet-0aaaaaaa"])
def test_wrong_subnets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="SUBNETS"):
        inputs.subnets(text)


def test_parameters_are_what_is_said_and_none_takes_one_away() -> None:
    assert inputs.parameters() == {}
    said = inputs.parameters(
        operators_email="ops@example.org", key_name="none", slack_origin="https://hooks.slack.com/"
    )
    assert said == {"OperatorsEmail": "ops@example.org", "KeyName": "", "SlackOrigin": "https://hooks.slack.com"}


def test_types_are_patterns_of_the_catalogue() -> None:
    said = inputs.parameters(instance_types="t3.*, m5.large t3.*")
    assert said == {"InstanceTypes": "t3.*,m5.large"}
    assert inputs.allowed(["t3.small", "t3a.small", "m5.large", "m5.xlarge"], ["t3.*", "m5.large"]) == [
        "t3.small",
        "m5.large",
    ]


def test_no_bound_of_types_is_the_catalogue_as_in_the_template() -> None:
    template = (ROOT / ".chalice/resources.yaml").read_text(encoding="utf-8")
    default = re.search(r'  InstanceTypes:\n.*\n    Default: "([^"]+)"', template)
    assert default is not None
    found = inputs.parameters(instance_types="none")["InstanceTypes"].split(",")
    assert sorted(found) == sorted(re.sub(r"\\\s+", "", default[1]).split(","))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*", "no type or family"),
        ("*.large", "no type or family"),
        ("t3*.large", "no type or family"),
        ("t3", "no type or family"),
        ("T3.medium", "no type or family"),
        ("t3.[sm]*", "no type or family"),
        ("t3.*,p5.48xlarge", "p5.48xlarge is no type of the catalogue"),
        ("x9.*", "x9.* is no type of the catalogue"),
        (",", "one type at least"),
        (",".join(f"t3.{'*' * stars}" for stars in range(1, 100)), "at most 4096 characters"),
    ],
)
def test_types_that_no_notebook_could_have_or_anybody_could_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        inputs.parameters(instance_types=text)


@pytest.mark.parametrize(
    "said",
    [
        {"operators_email": "ops"},
        {"installer_url": "https://example.org/installer.sh"},
        {"installer_sha256": "0" * 64},
        {"installer_url": "http://example.org/installer.sh", "installer_sha256": "0" * 64},
        {"installer_url": "https://example.org/installer.sh", "installer_sha256": "0" * 63},
        {"slack_origin": "http://hooks.slack.com"},
        {"slack_origin": "none"},
        {"key_name": " spaces "},
    ],
)
def test_a_parameter_that_could_not_work_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(InputError):
        inputs.parameters(**said)
