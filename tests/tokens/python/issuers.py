"""Issuers: keys by openssl, tokens by PyPI's pyjwt, npm's jose and `tidings token mint`."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import jwt

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
_JOSE = Path(__file__).parent.parent / "jose.mjs"
_OPENSSL = {
    "RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "EdDSA": ["-algorithm", "ED25519"],
}


@dataclass(frozen=True)
class Key:
    """What an issuer signs with; the files are what a server and the command line are given."""

    algorithm: str
    private: Path
    public: Path

    @property
    def issuer(self) -> str:
        return f"https://{self.algorithm.lower()}.example"

    def setting(self) -> dict:
        """The entry of `auth.issuers`."""
        source = "secret_file" if self.algorithm == "HS256" else "key_file"
        return {"issuer": self.issuer, "audience": ["tidings"], source: str(self.public)}

    def jose(self, part: Path) -> dict:
        name = "secret" if self.algorithm == "HS256" else "key"
        return {"alg": self.algorithm, name: part.read_text().strip() if name == "secret" else part.read_text()}


def make(directory: Path, algorithm: str, name: str = "") -> Key:
    private, public = (directory / f"{name}{algorithm}.{part}" for part in ("private", "public"))
    if algorithm == "HS256":
        _run("openssl", "rand", "-base64", "48", "-out", private)
        return Key(algorithm, private, private)
    _run("openssl", "genpkey", *_OPENSSL[algorithm], "-out", private)
    _run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
    return Key(algorithm, private, public)


def claims(key: Key, **others) -> dict:
    """Those of a good token of ann's; `None` takes one away."""
    now = int(time.time())
    granted = {"follow": ["orders/{sub}/*"], "publish": ["orders/**"]}
    said = {"iss": key.issuer, "aud": "tidings", "sub": "ann", "iat": now, "exp": now + 600, "jti": "t1", "tidings": granted}
    return {name: value for name, value in (said | others).items() if value is not None}


def by_pyjwt(key: Key, said: dict, kid: str | None = None, algorithm: str | None = None) -> str:
    secret = key.private.read_text().strip() if key.algorithm == "HS256" else key.private.read_text()
    return jwt.encode(said, secret, algorithm or key.algorithm, headers={"kid": kid} if kid else None)


def by_jose(key: Key, said: dict, kid: str | None = None) -> str:
    return jose("mint", key.jose(key.private) | {"claims": said, "kid": kid})


def jose(command: str, argument) -> dict | str:
    done = subprocess.run(["node", _JOSE, command], input=json.dumps(argument), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_tidings(key: Key, *flags: str) -> str:
    source = "--secret-file" if key.algorithm == "HS256" else "--key-file"
    return _run(os.environ["TIDINGS"], "token", "mint", source, key.private, "--issuer", key.issuer, *flags).strip()


def _run(*command) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
