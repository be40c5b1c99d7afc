"""Model headers over HTTP: the same reader, few bytes, and a server that is not trusted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd.errors import NotFound
from hybridd.local import gguf
from hybridd.local.gguf import BadGguf
from hybridd.local.gguf_url import open_url
from hybridd.local.http_link import Link
from hybridd.local.http_source import HttpSource
from hybridd.local.names import shown_url
from hybridd.local.sources import SourceError
from tests.fakes import hostile_gguf as make
from tests.fakes.range_server import RangeServer
from tests.fakes.vocabulary_gguf import make_vocabulary_gguf

BYTES = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer(BYTES).running() as running:
        yield running


def test_ranges_give_the_file_s_bytes(server: RangeServer) -> None:
    """Every read gives exactly the file's bytes at that place: small, large, overlapping, back, up to the end."""
    source = HttpSource(f"{server.base}/sound")
    assert source.size == len(BYTES)
    for offset, length in ((0, 4), (4, 300_000), (299_000, 600_000), (10, 3), (len(BYTES) - 5, 5), (len(BYTES), 0)):
        assert source.read(offset, length) == BYTES[offset : offset + length]
    with pytest.raises(SourceError, match="was asked for"):
        source.read(len(BYTES) - 5, 6)


def test_one_connection_serves_many_ranges_and_files(server: RangeServer) -> None:
    """Ranges of a file share a connection, files read over one link too, also behind a redirect."""
    link = Link()
    source = HttpSource(f"{server.base}/sound", link=link)
    source.read(500_000, 10)
    source.read(1_500_000, 10)
    HttpSource(f"{server.base}/redirect?to=/sound", link=link).read(1_000_000, 10)
    assert (len(server.asked), server.connections) == (6, 1)
    link.close()


@pytest.mark.parametrize("path", ["/closes", "/hangs-up?after=1", "/hangs-up?after=2"])
def test_a_connection_that_the_server_closed_is_opened_anew(server: RangeServer, path: str) -> None:
    """A kept connection that is gone at the next range, or goes while it is asked, costs a new one and no error."""
    source = HttpSource(server.base + path)
    for at in (500_000, 1_000_000, 1_500_000):
        assert source.read(at, 10) == BYTES[at : at + 10]
    assert server.connections >= 2


def test_a_new_connection_without_an_answer_is_an_error(server: RangeServer) -> None:
    """A server that never answers is not asked again and again."""
    with pytest.raises(SourceError, match="cannot be read"):
        HttpSource(f"{server.base}/hangs-up?after=0")
    assert len(server.asked) == 1


def test_cookies_are_not_sent_back(server: RangeServer) -> None:
    """What a server sets with one range is not told with the next."""
    source = HttpSource(f"{server.base}/cookie")
    source.read(1_000_000, 10)
    assert [one.headers.get("cookie") for one in server.asked] == [None, None]


def test_the_deadline_holds_on_a_kept_connection(server: RangeServer) -> None:
    """A connection that was good for one range and drips at the next is cut, and not tried again."""
    source = HttpSource(f"{server.base}/slow-later", deadline=0.5)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"within 0\.5 s"):
        source.read(1_000_000, 10)
    assert time.monotonic() - began < 5
    assert (len(server.asked), server.connections) == (2, 1)


def test_a_large_header_takes_few_requests_and_no_tensors(tmp_path: Path) -> None:
    """Of a model of 30 MB only the header travels, in at most eight requests, and is read like a local one."""
    path = make_vocabulary_gguf(tmp_path / "header.gguf")
    header = path.read_bytes()
    with path.open("ab") as file:
        file.truncate(len(header) + 30_000_000)
    with RangeServer(path.read_bytes()).running() as server:
        model = open_url(f"{server.base}/sound")
        assert len(server.asked) <= 8
        local = gguf.open_model(path)
        assert (model.metadata, model.file_bytes) == (local.metadata, local.file_bytes)
        assert model.head("tokenizer.ggml.merges", 3) == local.head("tokenizer.ggml.merges", 3)
        ranges = [one.headers["range"].removeprefix("bytes=").split("-") for one in server.asked]
        assert sum(int(end) - int(begin) + 1 for begin, end in ranges) < len(header) + 2 * 4 * 1024**2
        assert {one.headers["accept-encoding"] for one in server.asked} == {"identity"}


def test_parts_of_a_split_model_are_found_beside_it() -> None:
    """A split model is joined over HTTP as on disk; a missing part is named."""
    parts = {}
    for number in range(2):
        keys = [make.key("split.no", make.U16, number), make.key("split.count", make.U16, 2)]
        rows = [make.tensor(f"t{number}", (16,), 0)]
        parts[f"my m-{number + 1:05}-of-00002.gguf"] = make.build([make.ARCHITECTURE, *keys], rows, data=64).data
    with RangeServer(b"", files={name.replace(" ", "%20"): data for name, data in parts.items()}).running() as server:
        model = open_url(f"{server.base}/sound/my%20m-00001-of-00002.gguf?download=true")
        assert [(one.name, one.part) for one in model.tensors] == [("t0", 0), ("t1", 1)]
        server.files.popitem()
        with pytest.raises(BadGguf, match="part 2 of 2 is missing"):
            open_url(f"{server.base}/sound/my%20m-00001-of-00002.gguf")


def test_a_bad_file_is_refused_as_on_disk() -> None:
    """What a remote header says wrong is named by field and byte too."""
    for case in list(make.corpus())[::9]:
        if not case.data:
            continue
        with (
            RangeServer(case.data).running() as server,
            pytest.raises(BadGguf) as caught,
        ):
            open_url(f"{server.base}/sound")
        assert (caught.value.field, caught.value.offset) == (case.field, case.offset)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/ignores", "ignores ranges"),
        ("/untrue", "with Content-Range ''"),
        ("/star", "/\\*'"),
        ("/elsewhere", "the server gave 1-"),
        ("/fewer", "the server gave 0-9"),
        ("/cut", "cannot be read"),
        ("/short", "announced 262,144 bytes and sent 262,141"),
        ("/endless", "announced 262,144 bytes and sent more"),
        ("/encoded", "content-encoding 'gzip'"),
        ("/status?code=401", "wants a token"),
        ("/status?code=403", "gated"),
        ("/status?code=416", "is empty"),
        ("/status?code=500", "HTTP 500"),
        ("/status?code=204", "HTTP 204"),
        ("/redirect?to=", "no http or https URL"),
        ("/redirect?to=ftp://127.0.0.1/x", "no http or https URL"),
        ("/redirect?to=file:///etc/passwd", "no http or https URL"),
        ("/redirect?to=http://user:pw@127.0.0.1/x", "no http or https URL"),
        ("/redirect?to=http://[::", "URL"),
        ("/redirect?to=https:///x", "no http or https URL"),
    ],
)
def test_a_server_that_does_not_keep_to_the_rules_is_refused(server: RangeServer, path: str, says: str) -> None:
    """Each breach is an error with words of its own, never bytes that are not the file's."""
    with pytest.raises(SourceError, match=says):
        HttpSource(server.base + path)


def test_a_missing_file_and_too_many_requests_say_so(server: RangeServer) -> None:
    """404 is "there is none"; 429 carries the wait."""
    with pytest.raises(NotFound):
        HttpSource(f"{server.base}/nothing")
    with pytest.raises(SourceError, match="again in 17 s") as caught:
        HttpSource(f"{server.base}/status?code=429&wait=17")
    assert (caught.value.retry_after, caught.value.status) == (17, 429)


def test_a_loop_of_redirects_ends(server: RangeServer) -> None:
    """A server that redirects to itself is asked six times at most."""
    with pytest.raises(SourceError, match="more than 5 times"):
        HttpSource(f"{server.base}/loop")
    assert len(server.asked) == 6


@pytest.mark.parametrize("path", ["/replaced", "/grows"])
def test_a_file_replaced_between_two_ranges_is_noticed(server: RangeServer, path: str) -> None:
    """Another ETag or another size in a later range: the pieces do not belong together."""
    source = HttpSource(server.base + path)
    with pytest.raises(SourceError, match="was changed"):
        source.read(1_000_000, 1000)


def test_bytes_and_requests_are_bounded(server: RangeServer) -> None:
    """A header that goes on and on ends at the cap of bytes, one that jumps about at the cap of requests."""
    source = HttpSource(f"{server.base}/sound", max_bytes=1_000_000)
    with pytest.raises(SourceError, match="more than 1,000,000 bytes"):
        source.read(0, len(BYTES))
    source = HttpSource(f"{server.base}/sound", max_requests=2)
    assert len(source.read(1_900_000, 100)) == 100
    with pytest.raises(SourceError, match="more than 2 requests"):
        source.read(0, 100)


@pytest.mark.parametrize("path", ["/silent", "/drips"])
def test_a_slow_server_is_left(server: RangeServer, path: str) -> None:
    """Silence ends at the timeout; a head that drips, which no read ever waits long for, at the deadline."""
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"cannot be read|not read within"):
        HttpSource(server.base + path, timeout=0.3, deadline=0.6)
    assert time.monotonic() - began < 5


def test_nobody_there_is_said_in_words() -> None:
    """A refused connection, a name that is none, and what is no URL are errors with a sentence."""
    with pytest.raises(SourceError, match="cannot be read"):
        HttpSource("http://127.0.0.1:9/x", timeout=2)
    for url in ("file:///etc/passwd", "http://", "nothing", "http://user:secret@127.0.0.1/x", "http://[::"):
        with pytest.raises(SourceError, match="URL") as caught:
            HttpSource(url)
        assert "secret" not in str(caught.value)


# -- the token -----------------------------------------------------------------------------------------------------

TOKEN = "hf_not_for_others"


def test_the_token_goes_to_its_own_host_only(server: RangeServer) -> None:
    """It is sent to the host asked, also after a redirect inside it; to another port it is not."""
    HttpSource(f"{server.base}/redirect?to=/sound", token=TOKEN)
    assert server.tokens("/") == [f"Bearer {TOKEN}"] * 2
    with RangeServer(BYTES).running() as other:
        source = HttpSource(f"{server.base}/redirect?to={other.base}/sound", token=TOKEN)
        source.read(1_000_000, 10)
        assert len(other.asked) == 2
        assert other.tokens("/") == ["", ""]


def test_the_token_does_not_come_back_from_a_foreign_host(server: RangeServer) -> None:
    """A foreign host that redirects back cannot choose where the token goes."""
    with RangeServer(BYTES).running() as other:
        back = f"{other.base}/redirect?to={server.base}/sound"
        HttpSource(f"{server.base}/redirect?to={back}", token=TOKEN)
    assert server.tokens("/redirect") == [f"Bearer {TOKEN}"]
    assert server.tokens("/sound") == [""]


def test_a_host_of_another_name_is_another_host(server: RangeServer) -> None:
    """localhost and 127.0.0.1 are one machine and two names: the token does not move between them."""
    there = server.base.replace("127.0.0.1", "localhost")
    HttpSource(f"{server.base}/redirect?to={there}/sound", token=TOKEN)
    assert server.tokens("/sound") == [""]


def test_a_token_is_not_sent_in_the_clear() -> None:
    """Over plain http it goes to this machine only; what is no token at all is refused as well."""
    with pytest.raises(SourceError, match="not https"):
        HttpSource("http://192.0.2.1/x", token=TOKEN, timeout=0.1)
    with pytest.raises(SourceError, match="characters that no token has") as caught:
        HttpSource("https://192.0.2.1/x", token="a\r\nX: y", timeout=0.1)
    assert "X: y" not in str(caught.value)


def test_a_signed_address_that_expired_is_asked_for_again(server: RangeServer) -> None:
    """The address behind a redirect is remembered; once it is refused the first one is asked again."""
    source = HttpSource(f"{server.base}/redirect?to=/expires")
    assert source.read(1_000_000, 10) == BYTES[1_000_000:1_000_010]
    assert [one.path for one in server.asked] == ["/redirect", "/expires", "/expires", "/redirect", "/expires"]


def test_names_in_messages_carry_no_secrets() -> None:
    """A signature in the query and a password before the host are not shown."""
    assert shown_url("https://u:p@h.example:8/a/b.gguf?X-Amz-Signature=s#f") == "https://h.example:8/a/b.gguf"
    assert shown_url("a/b?c") == "a/b"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, secret = folder / "cert.pem", folder / "key.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run(
        [*command, *names, "-out", str(cert), "-keyout", str(secret)], check=True, capture_output=True, timeout=30
    )
    return cert, secret


def test_https_is_not_left_for_http(
    server: RangeServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to http is not followed; from https to https it is, with the certificate checked."""
    with RangeServer(BYTES, tls=certificate).running() as secure:
        with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
            HttpSource(f"{secure.base}/sound")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert HttpSource(f"{secure.base}/redirect?to=/sound", token=TOKEN).read(5, 5) == BYTES[5:10]
        with pytest.raises(SourceError, match="from https to http"):
            HttpSource(f"{secure.base}/redirect?to={server.base}/sound", token=TOKEN)
    assert server.asked == []


def test_reading_files_needs_no_http_library() -> None:
    """The daemon's side of the reader imports neither httpx nor anything that is heavy."""
    program = "import sys, hybridd.local.gguf, hybridd.local.inspect; print([m for m in sys.modules if m in %r])"
    heavy = ("httpx", "numpy", "llama_cpp", "huggingface_hub", "gguf", "jinja2")
    said = subprocess.run([sys.executable, "-c", program % (heavy,)], capture_output=True, check=True, timeout=30)
    assert said.stdout.strip() == b"[]"
