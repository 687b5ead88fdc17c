"""Where the client looks for a cluster and its token, and to whom a token is sent."""

from pathlib import Path

import pytest

from orpo_ray.client.address import dashboard_address, find_token, is_loopback
from orpo_ray.errors import InputError


def test_the_address_comes_from_the_first_that_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dashboard_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://b:8265/")
    assert dashboard_address(None) == "http://b:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://a")
    assert dashboard_address(None) == "https://a"
    assert dashboard_address("c:80") == "http://c:80"


@pytest.mark.parametrize("address", ["ray://head:10001", "head:6379", "http://", "ftp://head"])
def test_another_address_than_a_dashboards_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is not the address of a Ray dashboard"):
        dashboard_address(address)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as refused:
        dashboard_address("https://me:hunter2@head")
    assert "hunter2" not in str(refused.value)


def test_ray_address_auto_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert dashboard_address(None) == "http://127.0.0.1:8265"


@pytest.mark.parametrize(
    ("url", "own"),
    [("http://127.0.0.1:8265", True), ("http://localhost", True), ("http://[::1]:8265", True), ("http://10.0.0.1", False),
     ("http://localhost.example.com", False)],
)  # fmt: skip
def test_loopback(url: str, own: bool) -> None:
    assert is_loopback(url) is own


def test_rays_own_file_is_sent_to_this_machine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("mine\n")
    assert find_token(None, "http://127.0.0.1:8265") == "mine"
    assert find_token(None, "http://elsewhere:8265") is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert find_token(None, "http://elsewhere:8265") == "mine"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    assert find_token(None, "http://elsewhere:8265") == "theirs"
    assert find_token("given", "http://elsewhere:8265") == "given"


def test_a_token_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"RAY_AUTH_TOKEN_PATH: .* cannot be read"):
        find_token(None, "http://head")


def test_a_token_that_no_header_may_hold_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as refused:
        find_token("abc\ndef", "http://head")
    assert "abc" not in str(refused.value)
