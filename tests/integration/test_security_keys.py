"""Keys: replaced without a restart, closed to other users, and sent nowhere without TLS."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.token_endpoint import GOOGLE_AUDIENCE, TokenServer
from sparkpar_assets.resources.private_files import write_private
from tests.integration.versions import fares, trips_table
from tests.integration.workbench import FARES, Workbench


class RevokingServer(TokenServer):
    """Gives tokens for keys until they are revoked, and remembers which ones have asked.

    Attributes:
        public_keys: Those of the keys that are good, by the keys' ids.
        asked: The id of each assertion's key, in the order of the requests.
    """

    def __init__(self, key_file: Path) -> None:
        super().__init__((HOST, 0), key_file)
        self.public_keys: dict[str, bytes] = {}
        self.asked: list[str] = []

    def refusal(self, assertion: str) -> str | None:
        """Why an assertion is refused; nothing if a good key has signed it."""
        self.asked.append(jwt.decode_header(assertion)["kid"])  # type: ignore[no-untyped-call]
        try:
            jwt.decode(  # type: ignore[no-untyped-call]
                assertion,
                certs=self.public_keys,
                audience=[GOOGLE_AUDIENCE, f"http://{HOST}:{self.server_port}/token"],
            )
        except ValueError:
            return "Invalid JWT Signature."
        return None

    def make_key(self, like: dict[str, str], key_id: str) -> str:
        """A new key of the account, which is good from now on, as the text of a key file."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public_keys[key_id] = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private_key = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        changed = {
            "private_key": private_key.decode(),
            "private_key_id": key_id,
            "token_uri": f"http://{HOST}:{self.server_port}/token",
        }
        return json.dumps(like | changed)


@pytest.fixture
def key(workbench: Workbench) -> dict[str, str]:
    """The stack's key."""
    content: dict[str, str] = json.loads(
        Path(str(workbench.settings.google_credentials_file)).read_text()
    )
    return content


@pytest.fixture
def endpoint(workbench: Workbench) -> Iterator[RevokingServer]:
    """A token endpoint of this test alone."""
    with RevokingServer(Path(str(workbench.settings.google_credentials_file))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
def test_a_replaced_key_is_used_by_the_next_run_and_the_old_one_sent_no_more(
    workbench: Workbench, key: dict[str, str], endpoint: RevokingServer
) -> None:
    file = workbench.folder / "service_account.json"
    write_private(file, endpoint.make_key(key, "old"))
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(file))
    for year in (2017, 2018, 2019):
        workbench.load_trips(year, trips_table(year - 2014))

    # In the middle of a run of several years: it goes on with the key that it began with.
    run = workbench.popen("--select", FARES, "--partition-range", "2017...2019")
    workbench.wait_for(run, "Setting default log level")
    write_private(file, endpoint.make_key(key, "new"))
    assert run.wait(timeout=120) == 0, workbench.output_of(run)
    for year in (2017, 2018, 2019):
        assert workbench.published(year).to_pylist() == fares(year - 2014)
    assert "old" in endpoint.asked

    del endpoint.public_keys["old"]
    endpoint.asked.clear()
    workbench.materialize_years(2018)
    assert set(endpoint.asked) == {"new"}

    del endpoint.public_keys["new"]
    done = workbench.materialize("--select", FARES, "--partition", "2018")
    assert f"The key file {file} was rejected" in done.stdout + done.stderr


def test_a_key_that_others_can_read_or_that_goes_out_without_tls_is_refused(
    workbench: Workbench, key: dict[str, str]
) -> None:
    file = workbench.folder / "service_account.json"
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(file))
    write_private(file, json.dumps(key))
    file.chmod(0o644)
    done = workbench.run(
        *workbench.command("python", "-m", "sparkpar_assets.estimate", FARES, "2018")
    )
    assert f"{file} holds a secret, and other users" in done.stderr
    assert f"Run chmod 600 {file}" in done.stderr
    write_private(file, json.dumps(key | {"token_uri": "http://token.example.com/token"}))
    done = workbench.run(
        *workbench.command("python", "-m", "sparkpar_assets.estimate", FARES, "2018")
    )
    assert f"The token_uri of the key file {file} is plain http:// to another" in done.stderr
