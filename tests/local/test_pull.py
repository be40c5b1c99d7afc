"""Pulling from a hub on loopback, in real child processes: what arrives, from where, and what a cut leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from hybridd.config import gguf_files
from hybridd.local import index
from tests.fakes.hub import TOKEN, git_digest, sha256
from tests.local.hub_support import BODY, HALF, NAME, REPO, Place, content


def test_a_pull_lands_in_the_hubs_cache_layout_and_is_found_by_the_local_provider(place: Place) -> None:
    """The file is a link to a blob named by its digest, `main` names its commit, its origin is in the index, and the
    name it is served by is its stem."""
    done = place.pull(REPO).result
    commit = place.hub.repos[REPO].commit
    home = place.cache / "models--acme--tiny-GGUF"
    assert done["path"] == str(home / "snapshots" / commit / NAME)
    assert content(done["path"]) == BODY
    assert place.blobs() == [sha256(BODY)]
    assert (home / "refs/main").read_text() == commit
    assert os.readlink(done["path"]) == f"../../blobs/{sha256(BODY)}"
    assert (done["model"], done["downloaded"], done["revision"]) == ("tiny-Q4_K_M", len(BODY), commit)
    assert list(gguf_files.find([place.cache])) == ["tiny-Q4_K_M"]
    entry = index.read(place.state / "library.json")[str(home / "blobs" / sha256(BODY))]
    assert (entry.source, entry.repo, entry.sha256) == ("hub", REPO, sha256(BODY))
    assert "magic number" in done["problem"], "what has arrived is no model"
    assert place.outside() == []


def test_progress_counts_bytes_up_to_the_total(place: Place) -> None:
    """Progress lines never go back, name state and file, and reach the total."""
    lines = place.pull(REPO).progress
    loading = [line for line in lines if line["state"] == "downloading"]
    assert [line["done"] for line in loading] == sorted(line["done"] for line in loading)
    assert {line["total"] for line in loading} == {len(BODY)}
    assert lines[0]["state"] == "looking"
    assert lines[-1]["state"] == "verifying"


def test_the_token_goes_to_the_hub_and_to_nobody_else(place: Place) -> None:
    """The redirect to the content network carries no Authorization; the token is in no file and in no output."""
    place.with_token()
    done = place.pull(REPO)
    assert {one.headers.get("authorization") for one in place.hub.asked if one.host == "hub"} == {f"Bearer {TOKEN}"}
    assert [one.headers.get("authorization") for one in place.hub.requests("cdn")] == [None]
    assert TOKEN not in done.text
    kept = [path for path in place.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []


def test_without_a_token_none_is_looked_for_elsewhere(place: Place) -> None:
    """Without a configured key, without HF_TOKEN and without the Hub client's file, no Authorization is sent, and the
    client says nothing about this machine but its versions."""
    place.pull(REPO)
    assert {one.headers.get("authorization") for one in place.hub.asked} == {None}
    agents = {one.headers["user-agent"].partition("/")[0] for one in place.hub.asked}
    assert agents == {"hybridd"}


def test_a_renamed_repository_is_followed_with_the_token(place: Place) -> None:
    """Redirects on the Hub's own host are followed, API and files alike, and the token is still with them."""
    place.hub.faults.moved = {"acme/old-name": REPO}
    place.with_token()
    done = place.pull("acme/old-name").result
    assert content(done["path"]) == BODY
    assert {one.headers.get("authorization") for one in place.hub.asked if one.host == "hub"} == {f"Bearer {TOKEN}"}


def test_a_redirect_nobody_announced_does_not_take_the_token_along(place: Place) -> None:
    """A file that the Hub said it has itself and then sends elsewhere is fetched there without Authorization."""
    place.hub.add("acme/small", {"small-F16.gguf": BODY}, lfs=False)
    place.hub.faults.late_redirect = True
    place.with_token()
    assert content(place.pull("acme/small").result["path"]) == BODY
    assert [one.headers.get("authorization") for one in place.hub.requests("cdn")] == [None]


def test_a_connection_that_breaks_is_gone_on_with_where_it_stopped(place: Place) -> None:
    """Cut four times, every byte comes once: each further request asks for the rest only."""
    place.hub.faults.cut_after, place.hub.faults.cuts = 200_000, 4
    done = place.pull(REPO).result
    assert done["downloaded"] == len(BODY)
    assert content(done["path"]) == BODY
    ranges = [one.headers.get("range") for one in place.hub.requests("cdn")]
    assert ranges == [None, "bytes=200000-", "bytes=400000-", "bytes=600000-", "bytes=800000-"]


def test_a_pull_that_gave_up_is_resumed_by_the_next(place: Place) -> None:
    """When tries bring no byte any more, the pull fails; what came stays, and the next one asks for the rest."""
    place.hub.faults.cut_at = HALF
    failed = place.pull(REPO)
    assert (failed.error["code"], failed.last["downloaded"]) == ("hub_unavailable", HALF)
    place.hub.faults.cut_at = None
    done = place.pull(REPO).result
    assert (done["files"][0]["resumed"], done["downloaded"]) == (HALF, len(BODY) - HALF)
    assert content(done["path"]) == BODY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_pull_keeps_what_came_and_the_next_goes_on(place: Place, number: signal.Signals) -> None:
    """Terminated, interrupted or killed in the middle, the partial file stays; the next pull downloads the rest only
    and the digest is right."""
    place.hub.faults.hold_after = HALF
    child = place.start(REPO)
    before = read_until(child, 1)
    child.send_signal(number)
    if number == signal.SIGKILL:
        child.communicate(timeout=30)
    else:
        assert place.end(child, before).error["code"] == "cancelled"
    place.hub.faults.release.set()
    (partial,) = place.cache.glob("models--*/blobs/*.incomplete")
    there = partial.stat().st_size
    assert 0 < there <= HALF
    done = place.pull(REPO).result
    assert (done["files"][0]["resumed"], done["downloaded"]) == (there, len(BODY) - there)
    assert content(done["path"]) == BODY
    assert place.hub.requests("cdn")[-1].headers["range"] == f"bytes={there}-"


def read_until(child: subprocess.Popen[bytes], least: int) -> bytes:
    """What the child says until it has at least that many bytes of the file."""
    assert child.stdout is not None
    before = b""
    while True:
        line = child.stdout.readline()
        assert line, "the child ended"
        before += line
        if json.loads(line)["done"] >= least:
            return before


def test_a_server_that_ignores_ranges_is_read_from_the_start(place: Place) -> None:
    """After a cut, a 200 instead of a 206 begins the file anew; the content is right, not doubled."""
    place.hub.faults.cut_after, place.hub.faults.cuts, place.hub.faults.ignore_range = HALF, 1, True
    done = place.pull(REPO).result
    assert content(done["path"]) == BODY
    assert done["downloaded"] == HALF + len(BODY)


def test_a_range_that_was_not_asked_for_is_refused(place: Place) -> None:
    """A server that answers with other bytes than asked for is not trusted with the file."""
    place.hub.faults.cut_after, place.hub.faults.cuts, place.hub.faults.wrong_range = HALF, 1, True
    assert place.pull(REPO).error["code"] == "bad_answer"
    assert place.blobs() == [f"{sha256(BODY)}.incomplete"]


def test_a_wrong_checksum_throws_the_file_away(place: Place) -> None:
    """Content that is not what the Hub announced is an error with both digests; nothing of it stays or is served."""
    place.hub.faults.wrong_content = True
    error = place.pull(REPO).error
    assert error["code"] == "checksum_mismatch"
    assert error["details"]["expected"] == sha256(BODY)
    assert place.blobs() == []
    assert gguf_files.find([place.cache]) == {}


def test_a_spoilt_partial_file_costs_one_more_download_only(place: Place) -> None:
    """What an earlier run left may be wrong: when the digest of the whole is, it is fetched from the start, once."""
    blobs = place.cache / "models--acme--tiny-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(BODY)}.incomplete").write_bytes(b"x" * HALF)
    done = place.pull(REPO).result
    assert content(done["path"]) == BODY
    assert done["downloaded"] == len(BODY) - HALF + len(BODY)


def test_more_bytes_than_announced_are_refused(place: Place) -> None:
    """A body longer than the announced size is no part of the file."""
    place.hub.faults.too_long = True
    assert place.pull(REPO).error["code"] == "size_mismatch"


def test_a_file_outside_lfs_is_proven_by_gits_digest(place: Place) -> None:
    """Served by the hub itself, without a redirect: the blob is named by git's digest and checked against it."""
    place.hub.add("acme/small", {"small-F16.gguf": BODY}, lfs=False)
    done = place.pull("acme/small").result
    assert (content(done["path"]), place.blobs()) == (BODY, [git_digest(BODY)])


def test_a_repository_on_xet_is_fetched_by_plain_http(place: Place) -> None:
    """Where the Hub offers its newer protocol too, the redirect for everybody else is taken."""
    place.hub.add("acme/xet", {"x-Q8_0.gguf": BODY}, xet=True)
    assert content(place.pull("acme/xet").result["path"]) == BODY
    assert {one.path.partition("?")[0].rpartition("/")[2] for one in place.hub.requests("cdn")} == {sha256(BODY)}


def test_all_parts_of_a_split_model_come_together(place: Place) -> None:
    """A quantisation that is split is pulled whole, and by any of its parts; one that lacks a part is not offered."""
    parts = {f"Q4_K_M/big-Q4_K_M-0000{number}-of-00003.gguf": bytes([number]) * 1000 for number in (1, 2, 3)}
    place.hub.add("acme/big", {**parts, "torn-Q8_0-00001-of-00002.gguf": b"x"})
    done = place.pull("acme/big", file="big-Q4_K_M-00002-of-00003.gguf").result
    assert [one["file"] for one in done["files"]] == sorted(parts)
    assert done["path"].endswith("big-Q4_K_M-00001-of-00003.gguf")
    assert place.pull("acme/big", file="Q8_0").error["code"] == "file_not_found"


def test_what_is_there_is_not_downloaded_again(place: Place) -> None:
    """A second pull of the same commit asks what there is, and fetches nothing."""
    place.pull(REPO)
    done = place.pull(REPO).result
    assert (done["downloaded"], len(place.hub.requests("cdn"))) == (0, 1)


def test_a_branch_that_moved_on_leaves_one_model_of_the_name(place: Place) -> None:
    """After an update the new content is served; the former commit has let go of the file."""
    first = place.pull(REPO).result
    place.hub.add(REPO, {NAME: BODY[::-1]})
    second = place.pull(REPO).result
    assert gguf_files.find([place.cache]) == {"tiny-Q4_K_M": Path(second["path"])}
    assert not Path(first["path"]).exists()


def test_one_download_of_a_file_at_a_time(place: Place) -> None:
    """While one child writes a blob, a second is told so and touches nothing; after it, everything is as if alone."""
    place.hub.faults.hold_after = HALF
    first = place.start(REPO)
    before = read_until(first, 1)
    assert place.pull(REPO).error["code"] == "busy"
    place.hub.faults.release.set()
    assert place.end(first, before).result["downloaded"] == len(BODY)
