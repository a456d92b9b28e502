"""A certificate authority of our own, and the broker's certificate signed by it."""

import ipaddress
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import SettingsError

if TYPE_CHECKING:
    from cryptography import x509

# Ten years for the authority; clients that pin it need no change when the server's certificate is made anew.
AUTHORITY_DAYS = 3650
SERVER_DAYS = 825


class Certificates(msgspec.Struct, frozen=True):
    """PEM texts; the keys are secret."""

    ca: str
    ca_key: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "<Certificates>"


def new_certificates(hosts: tuple[str, ...], clock: Clock) -> Certificates:
    """A new authority and a certificate for the broker.

    Args:
        hosts: names and addresses that clients reach the broker by.
        clock: for the dates.

    Raises:
        SettingsError: the library is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ModuleNotFoundError as error:
        raise SettingsError(f"certificates need {error.name}: pip install 'headrace[auth]'") from error

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def pem(key: ec.EllipticCurvePrivateKey) -> str:
        plain = serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()

    # A clock that is a little behind ours takes it too.
    begins = clock.now() - timedelta(minutes=5)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = name("Headrace broker authority")
    identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    signs = dict.fromkeys(("key_cert_sign", "crl_sign", "digital_signature"), True)
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = x509.KeyUsage(**signs, **dict.fromkeys((*others, "encipher_only", "decipher_only"), False))
    ca = (
        x509.CertificateBuilder(ca_name, ca_name, ca_key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        x509.CertificateBuilder(ca_name, name(hosts[0]), key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    return Certificates(
        ca.public_bytes(encoding).decode(), pem(ca_key), certificate.public_bytes(encoding).decode(), pem(key)
    )


def _general_name(host: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
