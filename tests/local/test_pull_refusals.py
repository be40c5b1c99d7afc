"""What the Hub, the disk or the request can refuse, in real child processes: each has its code and its sentence."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fakes.hub import TOKEN
from tests.local.hub_support import BODY, NAME, REPO, Place, content


@pytest.mark.parametrize("where", ["api", "resolve", "cdn"])
def test_a_rate_limit_is_reported_at_once_with_its_pause(place: Place, where: str) -> None:
    """A 429 is neither waited out nor tried again: the error says when to come back, from either header."""
    limit = {"RateLimit": '"api";r=0;t=17', "RateLimit-Policy": '"fixed window";"api";q=5;w=300'}
    place.hub.faults.status[where] = (429, limit if where == "api" else {"Retry-After": "17"}, 5)
    error = place.pull(REPO).error
    assert (error["code"], error["retry_after"]) == ("rate_limited", 17)
    assert place.hub.faults.status[where][2] == 4


def test_a_gated_repository_says_where_to_accept_and_that_a_token_is_needed(place: Place) -> None:
    """Without a token (401) and with one that is not on the list (403), the sentence names the page; once granted, the
    same pull works."""
    repo = place.hub.add("acme/gated-GGUF", {"gated-Q4_K_M.gguf": BODY}, gated=True)
    error = place.pull(repo.name).error
    assert error["code"] == "gated"
    assert error["details"] == {"accept": f"{place.hub.url}/{repo.name}"}
    assert "HF_TOKEN" in error["message"]
    place.with_token()
    error = place.pull(repo.name).error
    assert (error["code"], "not on its list" in error["message"]) == ("gated", True)
    repo.granted = True
    assert place.pull(repo.name).result["downloaded"] == len(BODY)


def test_private_disabled_and_wrongly_signed_requests_each_have_their_sentence(place: Place) -> None:
    """A private repository is not told from a missing one; a disabled one is forbidden; a wrong token is called so and
    never repeated."""
    repo = place.hub.add("acme/secret-GGUF", {"secret-Q4_K_M.gguf": BODY}, private=True)
    error = place.pull(repo.name).error
    assert (error["code"], "HF_TOKEN" in error["message"]) == ("repository_not_found", True)
    place.with_token()
    assert place.pull(repo.name).result["downloaded"] == len(BODY)
    repo.disabled = True
    assert place.pull(repo.name, revision=repo.commit).error["code"] == "forbidden"
    place.with_token("hf_wrong_wrong_wrong_wrong")
    wrong = place.pull(REPO)
    assert wrong.error["code"] == "unauthorized"
    assert "hf_wrong" not in wrong.text


def test_the_configured_key_reference_is_used(place: Place) -> None:
    """A token in a file that the configuration names is found there; one that is not there is an error that names the
    place."""
    (place.home / "key").write_text(TOKEN + "\n")
    config = place.home / "c.json"
    config.write_text(json.dumps({"hugging_face": {"api_key": {"file": str(place.home / "key")}}}))
    place.hub.add("acme/gated-GGUF", {"g-Q4_K_M.gguf": BODY}, gated=True, granted=True)
    assert place.pull("acme/gated-GGUF", config=str(config)).result["downloaded"] == len(BODY)
    (place.home / "key").unlink()
    error = place.pull("acme/gated-GGUF", config=str(config)).error
    assert (error["code"], str(place.home / "key") in error["message"]) == ("config_invalid", True)


def test_missing_things_are_named_with_their_nearest(place: Place) -> None:
    """No such file lists near names; no such repository, revision, or no GGUF in it are told apart."""
    error = place.pull(REPO, file="tiny-Q4_K_S.gguf").error
    assert (error["code"], NAME in error["message"], error["details"]["near"][0]) == ("file_not_found", True, NAME)
    assert place.pull("acme/nothing").error["code"] == "repository_not_found"
    assert place.pull(REPO, revision="no-such").error["code"] == "revision_not_found"
    place.hub.add("acme/weights", {"model.safetensors": b"x"})
    assert place.pull("acme/weights").error["code"] == "no_gguf"
    assert place.hub.requests("cdn") == []


def test_a_hub_that_fails_for_a_moment_is_asked_again(place: Place) -> None:
    """Two 503 on the way do not end a pull; a Hub that is not there does, by its own code."""
    place.hub.faults.status = {"api": (503, {}, 1), "resolve": (500, {}, 1), "cdn": (502, {}, 2)}
    assert place.pull(REPO).result["downloaded"] == len(BODY)
    place.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert place.pull(REPO, file=NAME).error["code"] == "hub_unavailable"


def test_offline_nothing_is_asked(place: Place) -> None:
    """HF_HUB_OFFLINE forbids requests; the sentence names it."""
    place.environment["HF_HUB_OFFLINE"] = "1"
    error = place.pull(REPO).error
    assert (error["code"], "HF_HUB_OFFLINE" in error["message"], place.hub.asked) == ("hub_unavailable", True, [])


def test_space_is_checked_before_anything_is_downloaded(place: Place) -> None:
    """Needed bytes beside the reserve have to be free; otherwise the error names both, and no content was asked for."""
    error = place.pull(REPO, keep_free=1 << 60).error
    assert error["code"] == "disk_full"
    assert (error["details"]["needed"], error["details"]["keep_free"]) == (len(BODY), 1 << 60)
    assert f"{len(BODY):,} bytes are needed" in error["message"]
    assert place.hub.requests("cdn") == []
    assert not place.cache.exists()


def test_a_disk_that_refuses_ends_the_pull_and_keeps_what_came(place: Place) -> None:
    """A write that fails half-way is an error of its own, no traceback; with room again, the rest comes."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
        "from hybridd.local.pull import main; sys.exit(main())"
    )
    failed = place.end(place.start(REPO, program=program))
    assert (failed.code, failed.error["code"], "Traceback" in failed.text) == (1, "storage_failed", False)
    done = place.pull(REPO).result
    assert done["files"][0]["resumed"] == 300_000
    assert content(done["path"]) == BODY


def test_a_file_name_that_leads_elsewhere_is_never_offered(place: Place) -> None:
    """Whatever the Hub lists, a name that is no plain relative path is as if it were not there."""
    evil = ("../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "a\\..\\evil.gguf", "\x1b[2Jevil.gguf")
    place.hub.add("acme/evil", {**dict.fromkeys(evil, BODY), "fine-Q4_0.gguf": BODY})
    assert place.pull("acme/evil", file=evil[0]).error["code"] == "invalid_request"
    assert place.pull("acme/evil", file="evil.gguf").error["code"] == "file_not_found"
    assert place.pull("acme/evil").result["model"] == "fine-Q4_0"
    assert place.outside() == []


def test_digests_and_commits_that_are_paths_are_refused(place: Place) -> None:
    """An ETag or a commit with anything but hexadecimal digits in it ends the pull; nothing is written anywhere."""
    place.hub.faults.etag = "../../../evil"
    place.hub.add("acme/small", {"small-F16.gguf": BODY}, lfs=False)
    for repo in (REPO, "acme/small"):
        assert place.pull(repo).error["code"] == "bad_answer"
    place.hub.faults.etag = None
    place.hub.faults.no_commit = True
    assert place.pull(REPO).error["code"] == "bad_answer"
    place.hub.faults.no_commit = False
    place.hub.repos[REPO].commit = "../../" + "a" * 34
    assert place.pull(REPO).error["code"] == "bad_answer"
    assert [path for path in place.home.rglob("*") if path.is_file() and path.suffix != ".json"] == []


def test_requests_are_read_strictly(place: Place) -> None:
    """A misspelt member, a repository that is a path, and no JSON at all are the caller's errors."""
    assert place.pull(REPO, fiel="x").error["code"] == "invalid_request"
    for repo in ("../../etc", "a/b/c", "acme/..", "", "acme/tiny--x"):
        assert place.pull(repo).error["code"] == "invalid_request"
    assert place.hub.asked == []


def test_without_huggingface_hub_the_extra_is_named(place: Place) -> None:
    """A core installation says what to install."""
    program = "import sys; sys.modules['huggingface_hub'] = None; from hybridd.local.pull import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({"repo": REPO}).encode(),
        capture_output=True,
        env=place.environment,
        check=False,
    )
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, error["code"], "hybridd[local]" in error["message"]) == (1, "missing_extra", True)


def test_a_dry_run_says_what_would_come_and_fetches_nothing(place: Place) -> None:
    """The chosen file, its reasons and the missing bytes, without a byte of content and without a folder."""
    done = place.pull(REPO, dry_run=True).result
    assert (done["needed"], done["files"]) == (len(BODY), [{"file": NAME}])
    assert place.hub.requests("cdn") == []
    assert not place.cache.exists()
