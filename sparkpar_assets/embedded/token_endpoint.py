"""The token endpoint of the stack's service-account key, in Google's place.

Google's clients sign an assertion with the key of their key file and send it to the file's
``token_uri``. This endpoint answers the one key of this stack and refuses all others, so that a
wrong key fails here as it would at Google's (RFC 7523).
"""

import argparse
import http.server
import json
import secrets
import urllib.parse
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from google.auth import jwt

from sparkpar_assets.embedded.credentials import service_account_file, write_service_account
from sparkpar_assets.embedded.server import (
    Server,
    StackConfig,
    clean_environment,
    http_status,
    python_command,
)

NAME = "token-endpoint"
PATH = "/token"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"
"""What Google's libraries for Python and Java write as audience, whatever the key file says."""

TOKEN_SECONDS = 3600


def token_uri(config: StackConfig) -> str:
    """The address that the key file names."""
    return config.url(NAME) + PATH


def token_endpoint(config: StackConfig) -> Server:
    """The server that gives tokens for the stack's service-account key."""
    port = config.ports[NAME]
    key_file = service_account_file(config.state)
    return Server(
        name=NAME,
        command=python_command(
            __name__,
            *("--host", config.listens_on, "--port", str(port), "--key-file", str(key_file)),
        ),
        environment=clean_environment(config.state),
        folder=config.state.data,
        address=token_uri(config),
        listens={NAME: port},
        is_healthy=lambda: http_status(port, "/healthz") == 200,
        before_start=lambda: write_service_account(config.state, token_uri(config)),
    )


class TokenHandler(http.server.BaseHTTPRequestHandler):
    """Answers the JWT bearer grant of one service account."""

    server: "TokenServer"

    def do_GET(self) -> None:
        """Say that the server is up."""
        self._answer(200 if self.path == "/healthz" else 404, {})

    def do_POST(self) -> None:
        """Give a token for an assertion that the stack's key has signed."""
        length = int(self.headers.get("Content-Length") or 0)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode(errors="replace")))
        if self.path != PATH:
            self._answer(404, {"error": "not_found"})
        elif form.get("grant_type") != GRANT_TYPE:
            self._answer(400, {"error": "unsupported_grant_type"})
        elif refusal := self.server.refusal(form.get("assertion", "")):
            self._answer(400, {"error": "invalid_grant", "error_description": refusal})
        else:
            self._answer(
                200,
                {
                    "access_token": secrets.token_urlsafe(32),
                    "token_type": "Bearer",
                    "expires_in": TOKEN_SECONDS,
                },
            )

    def _answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log what is not a health check."""
        if self.path != "/healthz":
            super().log_request(code, size)


class TokenServer(http.server.ThreadingHTTPServer):
    """Knows the one key that is good."""

    def __init__(self, address: tuple[str, int], key_file: Path) -> None:
        super().__init__(address, TokenHandler)
        key = json.loads(key_file.read_text())
        private_key = serialization.load_pem_private_key(key["private_key"].encode(), None)
        self._public_key = private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._email = key["client_email"]
        self._audiences = [key["token_uri"], GOOGLE_AUDIENCE]

    def refusal(self, assertion: str) -> str | None:
        """Why an assertion is refused; nothing if it is good."""
        try:
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                assertion, certs=self._public_key, audience=self._audiences
            )
        except ValueError as error:
            # The message may quote the assertion, which is good for an hour.
            return "Invalid JWT Signature." if "verify" in str(error) else type(error).__name__
        return None if claims.get("iss") == self._email else "Invalid issuer."


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    arguments = parser.parse_args()
    TokenServer((arguments.host, arguments.port), arguments.key_file).serve_forever()


if __name__ == "__main__":
    main()
