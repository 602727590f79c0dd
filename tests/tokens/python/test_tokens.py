"""Tokens that others mint are good here, and those minted here are good for others."""

import time

import jwt
import pytest
from conftest import publish
from issuers import ALGORITHMS, by_jose, by_pyjwt, by_tidings, claims, jose, make

MINTERS = {"pyjwt": by_pyjwt, "jose": by_jose}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("minter", MINTERS)
def test_tokens_of_others_are_good(keys, server, follow, minter, algorithm):
    key = keys[algorithm]
    token = MINTERS[minter](key, claims(key))
    assert follow(token) == 200
    assert follow(token, "user:ann") == 200
    assert follow(token, "orders/bob/1") == 403
    assert follow(token, "user:bob") == 403
    assert publish(server, token).status_code == 200
    assert publish(server, token, "quakes").status_code == 403
    assert follow(None) == 401
    assert publish(server, None).status_code == 401


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("minter", MINTERS)
def test_what_they_say_is_checked(keys, follow, minter, algorithm):
    key, now = keys[algorithm], int(time.time())
    for wrong in (
        {"exp": now - 60},
        {"exp": None},
        {"nbf": now + 60},
        {"iat": now + 60},
        {"aud": "others"},
        {"aud": None},
        {"iss": "https://other.example"},
        {"iss": None},
        {"tidings": {"follow": ["orders/ann/1", "not a pattern"]}},
    ):
        assert follow(MINTERS[minter](key, claims(key, **wrong))) == 401, wrong
    assert follow(MINTERS[minter](key, claims(key, aud=["others", "tidings"], exp=now + 1.5))) == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_key_of_the_kind_is_nobodys(keys, follow, tmp_path, algorithm):
    stranger = make(tmp_path, algorithm)
    assert follow(by_pyjwt(stranger, claims(stranger))) == 401
    for other in keys.values():
        # A token of one issuer under the name of another.
        expected = 200 if other.algorithm == algorithm else 401
        assert follow(by_pyjwt(keys[algorithm], claims(other))) == expected


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "HS256"])
def test_a_key_set_of_jose_is_read(keys, follow, algorithm):
    key = keys[algorithm]
    said = claims(key, iss="https://set.example")
    for minter in MINTERS.values():
        assert follow(minter(key, said, algorithm)) == 200
        assert follow(minter(key, said)) == 200, "it need not say which key"
        assert follow(minter(key, said, "another")) == 401
    others = next(name for name in keys if name not in (algorithm, "HS256"))
    assert follow(by_pyjwt(key, said, others)) == 401, "it must not say the wrong one"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(keys, follow, algorithm):
    """pyjwt refuses to do this itself, so it is done by hand."""
    key = keys[algorithm]
    header, said = jwt.utils.base64url_encode(b'{"alg":"HS256"}'), jwt.utils.base64url_encode(jwt.api_jwt.json.dumps(claims(key)).encode())
    message = header + b"." + said
    for secret in (key.public.read_bytes(), key.public.read_bytes().strip()):
        hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        forged = message + b"." + jwt.utils.base64url_encode(hmac.sign(message, secret))
        assert follow(forged.decode()) == 401
    unsigned = jwt.encode(claims(key), None, "none")
    assert follow(unsigned) == 401


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tokens_of_this_program_are_good_for_others(keys, server, follow, algorithm):
    key = keys[algorithm]
    token = by_tidings(
        key, "--sub", "ann", "--follow", "orders/{sub}/*", "--publish", "orders/**", "--control", "--audience", "tidings", "--ttl", "10m", "--key-id", "k"
    )
    assert follow(token) == 200
    assert publish(server, token).status_code == 200
    secret = key.public.read_text().strip() if algorithm == "HS256" else key.public.read_text()
    by_python = jwt.decode(token, secret, [algorithm], audience="tidings", issuer=key.issuer)
    by_node = jose("verify", key.jose(key.public) | {"token": token, "audience": "tidings", "issuer": key.issuer})
    assert by_python == by_node["payload"]
    assert by_node["protectedHeader"] == {"alg": algorithm, "kid": "k", "typ": "JWT"}
    assert by_python["sub"] == "ann" and by_python["exp"] - by_python["iat"] == 600 and len(by_python["jti"]) == 32
    assert by_python["tidings"] == {"follow": ["orders/{sub}/*"], "publish": ["orders/**"], "control": True}
