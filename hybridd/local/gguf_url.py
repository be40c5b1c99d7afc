"""A model on a web server, from its header alone: what a plan needs before anything is downloaded.

Apart from `gguf`, because the daemon reads files on disk only and must not load an HTTP client for it.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, unquote, urlsplit

from hybridd.local import gguf
from hybridd.local.gguf import Gguf
from hybridd.local.http_link import Link
from hybridd.local.http_source import HttpSource


def open_url(url: str, *, token: str | None = None) -> Gguf:
    """The model at ``url``, from its header alone, a few megabytes; the parts of a split one are found beside it.

    Args:
        url: of a file, http or https; a query is kept for all parts.
        token: sent to the host of ``url`` and to no other.

    Raises:
        BadGguf, NotFound, SourceError: as :func:`hybridd.local.gguf.open_model`.
    """
    folder, slash, name = urlsplit(url).path.rpartition("/")

    def address(part: str) -> str:
        return urlsplit(url)._replace(path=f"{folder}{slash}{quote(part)}").geturl()

    return open_parts(unquote(name), address, token=token)


def open_parts(name: str, address: Callable[[str], str], *, token: str | None = None, link: Link | None = None) -> Gguf:
    """The model whose file is called ``name``, with all its parts, over one connection.

    Args:
        name: of the file, without a folder.
        address: the URL of a file by such a name.
        token: sent to the host of that URL and to no other.
        link: connections of earlier models; absent: new ones.

    Raises:
        BadGguf, NotFound, SourceError: as :func:`hybridd.local.gguf.open_model`.
    """
    shared = link or Link()
    return gguf.read_parts(name, lambda part: HttpSource(address(part), token=token, link=shared))
