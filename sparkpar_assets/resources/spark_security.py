"""Being let in by a Spark cluster that asks who one is."""

import os
import socket
import struct

APPLICATION = "sparkSaslUser"
"""What every process of a standalone cluster calls itself (SecurityManager.getSaslUser)."""

AUTHENTICATION = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    # Not AES/GCM/NoPadding, which also notices changes on the way: in Spark 3.5 it loses the second
    # message of a connection, and no worker ever registers (SPARK-56227).
    "spark.network.crypto.cipher": "AES/CTR/NoPadding",
    # Derives the session's key; version 1 takes the raw result of the key exchange.
    "spark.network.crypto.authEngineVersion": "2",
    "spark.network.crypto.saslFallback": "false",
    "spark.io.encryption.enabled": "true",
}
"""What master, workers, drivers and executors need beside the secret (Spark's documentation,
"Spark Security")."""

REQUEST, RESPONSE, FAILURE = 3, 4, 5
"""Types of Spark's messages (its network-common, protocol/Message.java)."""
AUTHENTICATION_TAG = 0xFB
KEY_BYTES = 16
JAVA_STRING = bytes([0xAC, 0xED, 0, 5, 0x74])
"""How Java serializes a string, before its length."""
NOBODY = "sparkpar-asks-who-is-let-in"
LONGEST_ANSWER = 1 << 20


def refusal(connection: socket.socket, secret: str | None) -> str:
    """Ask a master whether it would let a driver in, as the driver itself is going to.

    A driver that is refused tries for a minute, and then fails wherever it is at that moment.

    Args:
        connection: To the master, with a timeout.
        secret: The driver's; None for a driver that has none.

    Returns:
        Why it would not, as the end of a sentence; nothing if it would, or does not say.

    Raises:
        OSError: The connection is lost, or no answer comes in time.
    """
    connection.sendall(_frame(_challenge(secret) if secret else _message_to_nobody()))
    kind, answer = _answer(connection)
    if kind != FAILURE:
        return ""
    if secret is None:  # without one the answer is that there is no such endpoint
        return "" if NOBODY in answer else "it asks for a secret"
    if "Authentication failed" in answer:
        return "it has another secret"
    return "it asks for no secret, or does not encrypt what is said (spark.network.crypto.enabled)"


def _challenge(secret: str) -> bytes:
    """The first message of Spark's authentication (its network-common, crypto/README.md)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    salt, nonce = os.urandom(KEY_BYTES), os.urandom(12)
    state = APPLICATION.encode() + salt
    key = HKDF(hashes.SHA256(), KEY_BYTES, salt, state).derive(secret.encode())
    public_key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    encrypted = nonce + AESGCM(key).encrypt(nonce, public_key, state)
    parts = (APPLICATION.encode(), salt, encrypted)
    return bytes([AUTHENTICATION_TAG]) + b"".join(_counted(part, ">I") for part in parts)


def _message_to_nobody() -> bytes:
    """A string for an endpoint that no master has: a message that leaves no trace in its log."""
    no_sender, no_address = bytes([0]), bytes([0])
    receiver = no_address + _counted(NOBODY.encode(), ">H")
    return no_sender + receiver + JAVA_STRING + _counted(b"", ">H")


def _frame(body: bytes) -> bytes:
    header = struct.pack(">BQI", REQUEST, 1, len(body))
    return struct.pack(">Q", 8 + len(header) + len(body)) + header + body


def _answer(connection: socket.socket) -> tuple[int, str]:
    """Type and text of the answer."""
    (length,) = struct.unpack(">Q", _read(connection, 8))
    content = _read(connection, min(length - 8, LONGEST_ANSWER))
    return content[0], content[13:].decode(errors="replace")


def _read(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        piece = connection.recv(count - len(content))
        if not piece:
            raise ConnectionError("the master has closed the connection")
        content += piece
    return content


def _counted(content: bytes, length: str) -> bytes:
    return struct.pack(length, len(content)) + content
