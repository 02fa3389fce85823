"""What a person tells the local cloud by variables: taken as it was meant, or refused in one sentence that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chalicelib.errors import SettingsError
from chalicelib.settings import minute_of
from local.errors import PreflightError
from local.settings import Settings

ROOT = Path("/checkout")
SHA256 = "0123456789abcdef" * 4
URL = "https://example.org/Anaconda3.sh"


def read(**environment: str) -> Settings:
    return Settings.from_env({"NOD_CACHE_DIR": "/var/cache", **environment}, ROOT)


def refusal(**environment: str) -> str:
    with pytest.raises(PreflightError) as raised:
        read(**environment)
    text = str(raised.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_without_any_variable_it_is_as_the_documentation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Settings.from_env({}, ROOT) == Settings(
        state=ROOT / ".local",
        cache=Path("/home/somebody/.cache/nod"),
        api_port=8000,
        aws_port=5566,
        faults=(),
        region="us-east-1",
        minute_seconds=None,
        installer=None,
    )


def test_an_empty_variable_is_as_if_it_were_not_there() -> None:
    names = ("LOCAL_DIR", "API_PORT", "AWS_PORT", "FAULTS", "MINUTE_SECONDS", "INSTALLER_URL", "INSTALLER_SHA256")
    assert read(AWS_REGION="", **{f"NOD_{name}": "" for name in names}) == read()


def test_folders_are_absolute_whatever_the_current_folder_is_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read(NOD_LOCAL_DIR="my state", NOD_CACHE_DIR="cache")
    assert (settings.state, settings.cache) == (tmp_path / "my state", tmp_path / "cache" / "nod")


@pytest.mark.parametrize("variable", ["NOD_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_cache_with_a_space_in_its_path_is_refused_also_behind_a_link(tmp_path: Path, variable: str) -> None:
    spaced = tmp_path / "with a space"
    spaced.mkdir()
    link = tmp_path / "link"
    link.symlink_to(spaced)
    for folder in (spaced, link):
        assert "NOD_CACHE_DIR" in refusal(**{"NOD_CACHE_DIR": "", variable: str(folder)})
    assert list(spaced.iterdir()) == []


@pytest.mark.parametrize("variable", ["NOD_API_PORT", "NOD_AWS_PORT"])
@pytest.mark.parametrize(
    "value", ["http", "0", "-1", "+9000", "9_000", " 9000", "65536", "70000", "9000.0", "٩٠٠٠", "9" * 5000, "8888"]
)
def test_what_is_no_port_or_the_notebooks_own_is_refused(variable: str, value: str) -> None:
    text = refusal(**{variable: value})
    assert variable in text
    assert len(text) < 400


def test_one_port_for_both_is_refused_also_where_one_is_the_default() -> None:
    assert "NOD_API_PORT and NOD_AWS_PORT" in refusal(NOD_API_PORT="9000", NOD_AWS_PORT="9000")
    assert "5566" in refusal(NOD_API_PORT="5566")
    assert (read(NOD_API_PORT="1").api_port, read(NOD_AWS_PORT="65535").aws_port) == (1, 65535)


@pytest.mark.parametrize("value", ["abc", "0", "0.009", "-1", "61", "60.01", "nan", "inf", "-inf", "1e400", "1s", " "])
def test_a_minute_that_the_product_would_refuse_later_is_refused_now(value: str) -> None:
    with pytest.raises(SettingsError):
        minute_of(value)
    assert "NOD_MINUTE_SECONDS" in refusal(NOD_MINUTE_SECONDS=value)


@pytest.mark.parametrize(("value", "seconds"), [("0.01", 0.01), ("2", 2), ("60", 60), ("1e1", 10)])
def test_a_minute_of_any_length_in_between_is_taken(value: str, seconds: float) -> None:
    assert read(NOD_MINUTE_SECONDS=value).minute_seconds == seconds


def test_an_installer_needs_both_its_address_and_its_checksum() -> None:
    for given in ({"NOD_INSTALLER_URL": URL}, {"NOD_INSTALLER_SHA256": SHA256}):
        text = refusal(**given)
        assert "NOD_INSTALLER_URL" in text
        assert "NOD_INSTALLER_SHA256" in text


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.sh",
        "http://127.0.0.2/a.sh",
        "http://127.0.0.1.example.org/a.sh",
        "http://localhost/a.sh",
        "HTTPS://example.org/a.sh",
        "ftp://example.org/a.sh",
        "file:///a.sh",
        "/a.sh",
        "https://example.org",
        "https://example.org/a b.sh",
        "https://user@example.org/a.sh",
        "https://example.org/$(touch /x)",
        "https://example.org/" + "a" * 1024,
    ],
)
def test_an_address_that_the_document_would_refuse_later_is_refused_now(url: str) -> None:
    text = refusal(NOD_INSTALLER_URL=url, NOD_INSTALLER_SHA256=SHA256)
    assert "NOD_INSTALLER_URL" in text
    assert "https://" in text
    assert len(text) < 500


@pytest.mark.parametrize("url", [URL, "https://example.org:8443/a?b=c", "http://127.0.0.1:5566/_local/installer.sh"])
def test_https_and_this_machine_are_taken(url: str) -> None:
    assert read(NOD_INSTALLER_URL=url, NOD_INSTALLER_SHA256=SHA256).installer == (url, SHA256)


@pytest.mark.parametrize("sha256", [SHA256[:-1], SHA256 + "0", "g" * 64, f"{SHA256}\n", f"{SHA256} a.sh", "0" * 5000])
def test_a_checksum_that_is_none_is_refused(sha256: str) -> None:
    text = refusal(NOD_INSTALLER_URL=URL, NOD_INSTALLER_SHA256=sha256)
    assert "NOD_INSTALLER_SHA256" in text
    assert len(text) < 500


def test_a_checksum_in_upper_case_is_the_same_checksum() -> None:
    assert read(NOD_INSTALLER_URL=URL, NOD_INSTALLER_SHA256=SHA256.upper()).installer == (URL, SHA256)


@pytest.mark.parametrize(
    "region", ["x", "eu-central-9", "EU-CENTRAL-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1"]
)
def test_a_region_that_it_cannot_be_is_refused(region: str) -> None:
    assert "AWS_REGION" in refusal(AWS_REGION=region)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "mx-central-1"])
def test_aws_commercial_regions_are_taken(region: str) -> None:
    assert read(AWS_REGION=region).region == region


def test_a_fault_that_there_is_not_is_named() -> None:
    assert "nonsense" in refusal(NOD_FAULTS="no_capacity,nonsense")
    assert read(NOD_FAULTS=" vcpu_limit, no_capacity:t3.medium,").faults == ("no_capacity:t3.medium", "vcpu_limit")
