"""Which key a client sends, where it comes from, and what it says when it is refused."""

import os
from pathlib import Path

import pytest

from octollm.client import (
    AsyncClient,
    Client,
    ForbiddenError,
    ParameterError,
    ProfileError,
    RefusedError,
    UnauthenticatedError,
)
from octollm.client.credentials import DEFAULT_URL, resolve
from octollm.devstack import doctor
from octollm.devstack.doctor import Verdict
from octollm.settings.loader import load_settings
from tests.helpers.commands import octollm
from tests.helpers.scripted_server import DROP, TASK, Answer, Asyncio, Blocking, Made, frame, problem, serving, status

KEY, OTHER = (f"octo_{'a' * 12}_{digit * 52}" for digit in "23")


@pytest.fixture(params=[Blocking, Asyncio])
def made(request: pytest.FixtureRequest) -> Made:
    kind: Made = request.param
    return kind


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without key and profile."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("OCTOLLM_API_KEY", raising=False)
    return tmp_path


@pytest.fixture
def profile(home: Path):
    def write(text: str, mode: int = 0o600) -> Path:
        path = home / "octollm" / "profile.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


async def sent(made: Made, url: str | None, server, **options) -> str | None:
    """The header that a client sends."""
    server.requests.clear()
    async with made(url, **options) as client:
        await client.call("status", TASK)
    found: str | None = server.requests[0].headers.get("authorization")
    return found


async def test_the_argument_wins_over_the_environment_and_that_over_the_profile(made, profile, monkeypatch):
    async with serving(status("running")) as server:
        assert await sent(made, server.url, server) is None
        profile(f'url = "{server.url}/"\napi_key = "{OTHER}"')
        assert await sent(made, server.url, server) == f"Bearer {OTHER}"
        assert await sent(made, None, server) == f"Bearer {OTHER}"
        monkeypatch.setenv("OCTOLLM_API_KEY", KEY)
        assert await sent(made, server.url, server) == f"Bearer {KEY}"
        assert await sent(made, server.url, server, api_key=OTHER) == f"Bearer {OTHER}"
        assert await sent(made, server.url, server, api_key="") is None
        monkeypatch.setenv("OCTOLLM_API_KEY", "")
        assert await sent(made, server.url, server) == f"Bearer {OTHER}"


async def test_the_profiles_key_goes_to_the_profiles_address_only(made, profile):
    async with serving(status("running")) as server:
        profile(f'url = "https://octollm.example.org"\napi_key = "{KEY}"')
        assert await sent(made, server.url, server) is None
        profile(f'api_key = "{KEY}"')
        assert await sent(made, server.url, server) is None
    assert resolve(None, None)[0] == DEFAULT_URL
    found = resolve("http://127.0.0.1:8080/", None)[1]
    assert found is not None
    assert (found.text, found.visible) == (KEY, KEY[:17])


async def test_a_redirect_to_another_host_does_not_get_the_key(made):
    async with serving(status("running")) as other:
        moved = Answer(307, b"{}", {"Location": f"{other.url}/v1/tasks/{TASK}"})
        async with serving(moved) as server, made(server.url, api_key=KEY, retry_for_s=0) as client:
            with pytest.raises(Exception, match="307"):
                await client.call("status", TASK)
            client._client._http.follow_redirects = True  # what a later change could do
            await client.call("status", TASK)
        assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
        assert "authorization" not in other.requests[-1].headers


async def test_an_event_stream_carries_the_key_too(made):
    stream = Answer.stream(frame(1, "accepted"), frame(2, "finished", state="succeeded"))
    async with serving(stream) as server, made(server.url, api_key=KEY) as client:
        await client.collect("events", TASK)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("code", "status_code", "kind"),
    [
        ("missing_credential", 401, UnauthenticatedError),
        ("invalid_credential", 401, UnauthenticatedError),
        ("expired_credential", 401, UnauthenticatedError),
        ("insufficient_scope", 403, ForbiddenError),
        ("foreign_host", 403, RefusedError),
        ("invalid_signature", 401, RefusedError),
    ],
)
async def test_refusals_have_types_and_are_not_repeated(made, code, status_code, kind):
    async with serving(problem(status_code, code, "the reason")) as server, made(server.url, api_key=KEY) as client:
        with pytest.raises(RefusedError) as caught:
            await client.call("status", TASK)
        with pytest.raises(RefusedError):
            await client.collect("events", TASK)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status_code, code)
    assert "the reason" in caught.value.message
    assert ("OCTOLLM_API_KEY" in caught.value.message) == (code == "missing_credential")
    assert len(server.requests) == 2
    assert KEY[-52:] not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_a_profile_that_is_open_to_others_is_refused_with_the_remedy(profile, mode):
    path = profile(f'api_key = "{KEY}"', mode)
    with pytest.raises(ProfileError, match=f"run `chmod 600 {path}`") as caught:
        Client()
    assert KEY not in str(caught.value)
    path.chmod(0o400)
    Client().close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"api_key = {KEY}", "not valid TOML"),
        (f'key = "{KEY}"', "'key'"),
        ("url = 5", "'url'"),
        ('url = "octollm.example.org"', "must be like https://"),
        ('url = "ftp://octollm.example.org"', "must be like https://"),
        ("\udcff", "not valid TOML"),
    ],
)
def test_a_wrong_profile_is_said(profile, text, said):
    path = profile("")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ProfileError, match=said) as caught:
        Client()
    assert KEY not in str(caught.value)


async def test_a_folder_in_place_of_the_profile_is_said(home):
    (home / "octollm" / "profile.toml").mkdir(parents=True)
    with pytest.raises(ProfileError, match="cannot be read"):
        AsyncClient()


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", "ключ", "x" * 8193, "a\0b"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key, monkeypatch):
    with pytest.raises(ParameterError) as caught:
        Client(api_key=key)
    assert (caught.value.field, key.strip() in str(caught.value)) == ("api_key", False)
    if "\0" not in key:
        monkeypatch.setenv("OCTOLLM_API_KEY", key)
        with pytest.raises(ParameterError, match="OCTOLLM_API_KEY"):
            Client()


def test_no_repr_shows_the_key():
    client = Client(api_key=KEY)
    _, credential = resolve(None, KEY)
    shown = repr([client, vars(client), client._http, vars(client._http), credential, client._http.auth])
    assert KEY[-52:] not in shown


async def test_the_command_line_takes_the_profile_and_sends_no_key_with_webhooks(profile, monkeypatch):
    for name in [name for name in os.environ if name.startswith("OCTOLLM_")]:
        monkeypatch.delenv(name)
    async with serving(status("running")) as server:
        profile(f'url = "{server.url}"\napi_key = "{KEY}"')
        assert (await octollm("show", TASK)).exit_code == 0
        assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
        monkeypatch.setenv("OCTOLLM_API_KEY", OTHER)
        assert (await octollm("show", TASK)).exit_code == 0
        assert server.requests[-1].headers["authorization"] == f"Bearer {OTHER}"
        monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "x" * 32)
        await octollm("webhook", "send", "github", "--url", server.url)
        assert server.requests[-1].target == "/v1/webhooks/github"
        assert "authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    ("key", "answer", "verdict", "said"),
    [
        (KEY, problem(404, "not_found", "no"), Verdict.OK, "accepts it"),
        ("", problem(404, "not_found", "no"), Verdict.OK, "none is sent; http://127.0.0.1"),
        (KEY, problem(401, "invalid_credential", "the reason"), Verdict.FAIL, "the reason"),
        ("", problem(401, "missing_credential", "the reason"), Verdict.FAIL, "the reason"),
        (KEY, problem(403, "insufficient_scope", "no"), Verdict.WARN, "lacks the scope read"),
        (KEY, problem(503, "credentials_unavailable", "the reason"), Verdict.WARN, "the reason"),
        (KEY, DROP, Verdict.WARN, "cannot be reached"),
        (f"{KEY} ", DROP, Verdict.FAIL, "OCTOLLM_API_KEY has spaces"),
    ],
)
async def test_doctor_says_which_key_is_sent_and_whether_it_works(monkeypatch, key, answer, verdict, said):
    monkeypatch.setenv("OCTOLLM_API_KEY", key)
    async with serving(answer) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        check = await doctor._credential(load_settings())
    assert check.verdict is verdict
    assert said in check.found
    assert (KEY[:17] in check.found) == (key == KEY)
    assert KEY[-52:] not in repr(check)
