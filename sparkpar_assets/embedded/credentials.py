"""The keys and certificates of an embedded stack, all made on the spot and of use only there."""

import datetime
import ipaddress
import json
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.state import State
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.resources.spark_security import AUTHENTICATION

PROJECT = "sparkpar-embedded"
LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class S3Keys:
    """An access key in the form of AWS's."""

    access_key_id: str
    secret_access_key: str


def s3_keys(state: State) -> S3Keys:
    """The keys of the S3 server, made at the first call."""
    file = state.secrets / "s3_keys.json"
    if not file.exists():
        alphabet = string.ascii_uppercase + string.digits
        access_key_id = "SP" + "".join(secrets.choice(alphabet) for _ in range(18))
        keys = {"access_key_id": access_key_id, "secret_access_key": secrets.token_urlsafe(30)}
        write_private(file, json.dumps(keys))
    return S3Keys(**json.loads(file.read_text()))


def spark_secret_file(state: State) -> Path:
    """The secret that Spark's master, workers, drivers and executors share."""
    return state.secrets / "spark_auth_secret"


def spark_properties_file(state: State) -> Path:
    """The same for master and workers: a file of Spark properties, with what goes with it."""
    return state.secrets / "spark.properties"


def write_spark_secret(state: State) -> None:
    """Write both files; the secret is made at the first call."""
    file = spark_secret_file(state)
    if not file.exists():
        write_private(file, secrets.token_hex(32))
    properties = AUTHENTICATION | {"spark.authenticate.secret": file.read_text()}
    lines = [f"{name} {value}\n" for name, value in properties.items()]
    write_private(spark_properties_file(state), "".join(lines))


def service_account_file(state: State) -> Path:
    """Where the Google service-account key is."""
    return state.secrets / "service_account.json"


def write_service_account(state: State, token_uri: str) -> None:
    """Write the service-account key: made once, with the token endpoint's present address."""
    file = service_account_file(state)
    key = json.loads(file.read_text()) if file.exists() else _new_service_account()
    if key.get("token_uri") != token_uri:
        write_private(file, json.dumps(key | {"token_uri": token_uri}, indent=2))


def _new_service_account() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    email = f"sparkpar@{PROJECT}.iam.gserviceaccount.com"
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": secrets.token_hex(20),
        "private_key": _pem(key).decode(),
        "client_email": email,
        "client_id": str(secrets.randbits(64)),
    }


def ca_file(state: State) -> Path:
    """The stack's certificate authority, as PEM."""
    return state.stack / "ca.pem"


def trust_store_file(state: State) -> Path:
    """The stack's certificate authority, as a trust store for Java, without a password."""
    return state.stack / "truststore.p12"


def server_certificate_file(state: State) -> Path:
    """The certificate of the servers that speak TLS."""
    return state.secrets / "server.pem"


def server_key_file(state: State) -> Path:
    """The private key of that certificate."""
    return state.secrets / "server.key"


def create_certificates(state: State, hosts: Iterable[str] = ()) -> None:
    """Make the authority, a server certificate and the trust store, unless they are there.

    The authority's own key is forgotten: nothing else can be signed with it.

    Args:
        state: The stack's state.
        hosts: The names of hosts that the certificate is good for, besides this machine's own.
    """
    # Written last, so that what a Ctrl-C left half is made anew, all of it.
    if trust_store_file(state).exists():
        return
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("sparkpar embedded stack, its own authority")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(constraints, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [
        *(x509.DNSName(name) for name in sorted({"localhost", *hosts})),
        x509.IPAddress(ipaddress.ip_address(HOST)),
    ]
    certificate = (
        _certificate(_name("localhost"), ca_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(server_key_file(state), _pem(key))
    write_private(
        server_certificate_file(state), certificate.public_bytes(serialization.Encoding.PEM)
    )
    write_private(ca_file(state), ca.public_bytes(serialization.Encoding.PEM))
    store = pkcs12.serialize_java_truststore(
        [pkcs12.PKCS12Certificate(ca, b"sparkpar")], serialization.NoEncryption()
    )
    write_private(trust_store_file(state), store)


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    # An hour back: another machine's clock, as a container's, may be behind.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
