"""Masking of personal data and secrets: whole secrets, and nothing else."""

from __future__ import annotations

import polars as pl
import pytest

from dataprep.common.personal_data import EMAIL, KEY, ascii_word_boundaries, masked

BODY = "MIIEpSECRETBODY" * 20
RSA = "RSA PRIVATE KEY-----"
SECRETS = {
    "a PEM key": f"-----BEGIN {RSA}\n{BODY}\n-----END {RSA}",
    "an encrypted PEM key": f"-----BEGIN {RSA}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,01\n\n{BODY}\n-----END {RSA}",
    "a PEM key in JSON": rf"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----",
    "a PEM key without its end": f"-----BEGIN {RSA}\n{BODY}",
    "a PGP key": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{BODY}\n-----END PGP PRIVATE KEY BLOCK-----",
    "Stripe": "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc",
    "GitLab": "glpat-" + "ABCDEFGHIJKLMNOPQRST",
    "npm": "npm_" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "SendGrid": "SG." + "abcdefghijklmnopqrstuv.ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq",
    "a bearer": "Bearer abcdefghijklmnopqrstuvwxyz123456",
    "AWS": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "a web token without its end": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0",
}
ADDRESSES = ["jane.doe@example.org", "jane@münchen.de", "müller@example.de", "иван@почта.рф", "user@例え.jp"]


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_masked_as_a_whole_and_counted(kind: str) -> None:
    assert masked([SECRETS[kind]]) == ["[key hidden]"]
    assert masked([f"it is {SECRETS[kind]}"]) == ["it is [key hidden]"]
    assert pl.Series([SECRETS[kind]]).str.contains(ascii_word_boundaries(KEY)).all()


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_e_mail_address_is_masked_as_a_whole_and_counted(address: str) -> None:
    assert masked([f"write to {address}, please"]) == ["write to [e-mail hidden], please"]
    assert pl.Series([address]).str.contains(EMAIL).all()


def test_the_text_around_secrets_stays() -> None:
    two = f"a {SECRETS['a PEM key']} b {SECRETS['a PEM key in JSON']} c"
    assert masked([two]) == ["a [key hidden] b [key hidden] c"]
    assert masked(["请发邮件至jane@example.org谢谢你"]) == ["请发邮件至[e-mail hidden]谢谢你"]
    plain = ["Authorization: Bearer YOUR_TOKEN", "in 2024 at 12:00", "@property", "a task-force", "npm_config_cache"]
    assert masked(plain) == plain
    assert masked([]) == []
