"""The archive of `sysdump`: what is in it, and what never is."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.see.sysdump import SHOWN, log_of, network, sysdump, without_secrets

WORD = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12)
FORMS = [
    "token: {}", "token={}", '"token": "{}"', "Authorization: Bearer {}", "bearer {}",
    "password: {}", "client-key-data: {}", "certificate-authority-data: {}",
    "https://admin:{}@10.0.0.1:6443/", "api-key={}", "secret = {}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\n{}",
    "eyJhbGciOiJSUzI1NiJ9.{}.{}",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@given(secret=WORD)
def test_credentials_are_left_out(form: str, secret: str) -> None:
    """In every form in which logs and files have them; what stands around them stays."""
    text = f"12:00 n1 begin\n{form.replace('{}', secret)}\n12:01 end"
    cleaned = without_secrets(text)
    assert secret not in cleaned
    assert "left out" in cleaned
    assert cleaned.startswith("12:00 n1 begin\n")


@given(st.lists(st.sampled_from(["service", "default/web:http", "10.0.0.1:80", "tokens", "keys"])))
def test_all_else_stays(words: list[str]) -> None:
    """Names and addresses are what a bug report is about."""
    text = " ".join(words)
    assert without_secrets(text) == text


def test_an_archive_without_an_agent(tmp_path: Path) -> None:
    """Every part has its file, and says why it could not be had; only the owner may read it."""
    log = tmp_path / "agent.log"
    log.write_text("served\nAuthorization: Bearer abcdefgh12345678\n")
    target = tmp_path / "dump.tar.gz"
    parts = sysdump(target, tmp_path / "none", tmp_path / "none.sock", log=log)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target) as archive:
        names = archive.getnames()
        texts = {
            name.partition("/")[2]: file.read().decode()
            for name in names
            if (file := archive.extractfile(name)) is not None
        }
    assert set(texts) == set(parts) >= {f"show-{what}.json" for what in SHOWN}
    assert "no agent answers" in texts["status.json"]
    assert json.loads(texts["versions.json"])["kernel"]
    assert texts["log.txt"] == "served\nAuthorization: Bearer [left out]\n"
    with pytest.raises(FileExistsError):
        sysdump(target, tmp_path / "none", tmp_path / "none.sock", log=log)


def test_a_command_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named in its place, and those that are there still answer; a pod's log is elsewhere."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "tc").write_text("#!/bin/sh\necho noqueue\n")
    (programs / "tc").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    said = network()
    assert "$ ip address\ncould not be had: [Errno 2] No such file or directory: 'ip'\n" in said
    assert said.endswith("$ tc qdisc\nnoqueue\n")
    log = log_of(None)
    assert "No such file or directory: 'journalctl'" in log
    assert "kubectl logs" in log
