"""A model on a web server, from its header alone: what a plan needs before anything is downloaded.

Apart from `gguf`, because the daemon reads files on disk only and must not load an HTTP client for it.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from hybridd.local import gguf
from hybridd.local.gguf import Gguf
from hybridd.local.http_source import HttpSource
from hybridd.local.sources import Source


def open_url(url: str, *, token: str | None = None) -> Gguf:
    """The model at ``url``, from its header alone, a few megabytes; the parts of a split one are found beside it.

    Args:
        url: of a file, http or https; a query is kept for all parts.
        token: sent to the host of ``url`` and to no other.

    Raises:
        BadGguf, NotFound, SourceError: as :func:`hybridd.local.gguf.open_model`.
    """
    folder, slash, name = urlsplit(url).path.rpartition("/")

    def source(part: str) -> Source:
        return HttpSource(urlsplit(url)._replace(path=f"{folder}{slash}{quote(part)}").geturl(), token=token)

    return gguf.read_parts(unquote(name), source)
