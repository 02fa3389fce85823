"""The notebook's certificate: whom it names, when it is made anew, and that nothing half-made is ever seen."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

from instance.files import certificate

NAMES = ["ec2-203-0-113-25.compute-1.amazonaws.com", "ip-10-0-0-5.ec2.internal", "203.0.113.25", "2001:db8::1"]


class Metadata(certificate.Metadata):
    """What the metadata service would say, or the error that it is."""

    def __init__(self, names: list[str] | None) -> None:
        super().__init__()
        self._names = names

    def names(self) -> list[str]:
        if self._names is None:
            raise OSError("no route")
        return certificate.canonical(self._names)


@pytest.fixture(autouse=True)
def _readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "READERS", "root")


def ensure(folder: Path, names: list[str] | None) -> str:
    return certificate.ensure(folder, Metadata(names), patience=0)


def loaded(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "notebook.pem").read_bytes())


def test_a_certificate_names_the_instance_and_nothing_else(tmp_path: Path) -> None:
    assert "there is none" in ensure(tmp_path, NAMES)
    made = loaded(tmp_path)
    san = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == NAMES[:2]
    assert san.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(name) for name in NAMES[2:]]
    assert made.subject.rfc4514_string() == f"CN={NAMES[0]}"
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(days=825)
    assert made.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365)


def test_a_server_can_be_started_with_the_one_file(tmp_path: Path) -> None:
    ensure(tmp_path, NAMES)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "notebook.pem")
    assert stat.S_IMODE((tmp_path / "notebook.pem").stat().st_mode) == 0o640


def test_the_fingerprint_is_the_one_that_others_compute(tmp_path: Path) -> None:
    ensure(tmp_path, NAMES)
    expected = loaded(tmp_path).fingerprint(SHA256()).hex(":").upper()
    assert certificate.fingerprint((tmp_path / "notebook.pem").read_text()) == expected


def test_a_right_certificate_stays(tmp_path: Path) -> None:
    ensure(tmp_path, NAMES)
    before = (tmp_path / "notebook.pem").read_bytes()
    assert ensure(tmp_path, list(reversed(NAMES))) == "kept: it is right"
    assert (tmp_path / "notebook.pem").read_bytes() == before


@pytest.mark.parametrize("names", [NAMES[:2], [*NAMES, "203.0.113.26"], ["203.0.113.99"]])
def test_other_names_ask_for_another_certificate(names: list[str], tmp_path: Path) -> None:
    ensure(tmp_path, NAMES)
    assert "its names" in ensure(tmp_path, names)
    assert ensure(tmp_path, names) == "kept: it is right"


def test_a_certificate_near_its_end_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "DAYS", 29)
    ensure(tmp_path, NAMES)
    assert "ends within 30 days" in ensure(tmp_path, NAMES)


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "notebook.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    assert "cannot be read" in ensure(tmp_path, NAMES)
    assert loaded(tmp_path)


@pytest.mark.parametrize("names", [None, []])
def test_without_the_metadata_service_the_present_one_stays(names: list[str] | None, tmp_path: Path) -> None:
    with pytest.raises(certificate.CertificateError, match="metadata service"):
        ensure(tmp_path, names)
    ensure(tmp_path, NAMES)
    assert ensure(tmp_path, names).startswith("kept: the metadata service")


@pytest.mark.parametrize(
    "name", ["a,DNS:evil.example", "a b", "*", "-a.b", "a\nb", "a" * 64, "a." * 127 + "ab", "ä.de", "a..b"]
)
def test_what_is_no_host_name_goes_into_no_certificate(name: str, tmp_path: Path) -> None:
    with pytest.raises(certificate.CertificateError):
        ensure(tmp_path, [name])
    assert not list(tmp_path.iterdir())


def test_a_name_too_long_for_a_common_name_is_an_alternative_name_only(tmp_path: Path) -> None:
    long = f"{'a' * 60}.example.internal"
    ensure(tmp_path, [long, "10.0.0.5"])
    assert loaded(tmp_path).subject.rfc4514_string() == "CN=10.0.0.5"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".new-abc").mkdir()
    (tmp_path / ".new-abc/key.pem").write_text("half")
    ensure(tmp_path, NAMES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notebook.pem"]


def test_openssls_complaint_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "DAYS", -1)
    with pytest.raises(certificate.CertificateError, match="openssl"):
        ensure(tmp_path, NAMES)
    assert not list(tmp_path.iterdir())
