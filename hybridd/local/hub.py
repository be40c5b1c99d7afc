"""The Hub as hybridd needs it: search, and a repository's GGUF models.

Runs in the command line and in children of the daemon only: huggingface_hub is imported when a :class:`Hub` is made.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hybridd._version import __version__
from hybridd.config.settings import HuggingFaceSettings
from hybridd.errors import ConfigError
from hybridd.local import names
from hybridd.local.hub_errors import HubError, explain
from hybridd.local.hub_models import Choice, RepoFile, RepoModel, Repository, choose, group, pick

__all__ = ["Choice", "Found", "Hub", "RepoFile", "RepoModel", "Repository", "choose", "group", "pick", "token_of"]

API_SECONDS = 20.0


class Found(msgspec.Struct, frozen=True):
    """One line of a search. Figures that the Hub does not state are None."""

    repo: str
    downloads: int | None
    likes: int | None
    gated: bool
    updated: str | None
    architecture: str | None
    parameters: int | None
    context: int | None
    quantizations: tuple[str, ...]


class Hub:
    """The Hub at ``HF_ENDPOINT``. ``token``: sent to that host only.

    Raises:
        ConfigError: huggingface_hub is not installed.
    """

    def __init__(self, token: str | None = None) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the import: it is read once
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise ConfigError(
                "huggingface_hub is not installed; install the extra: hybridd[local]", code="missing_extra"
            ) from error
        self.endpoint = names.endpoint()
        self.token = token
        self._api = HfApi(
            endpoint=self.endpoint, token=token or False, library_name="hybridd", library_version=__version__
        )

    def search(self, text: str, *, limit: int = 20, sort: str = "downloads") -> list[Found]:
        """Repositories with GGUF files, the most downloaded first.

        Raises:
            HubError: see :mod:`hybridd.local.hub_errors`.
        """
        from huggingface_hub import get_session
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        # Not HfApi.list_models: it waits out a 429 in place, however long that is.
        headers = build_hf_headers(token=self.token or False, library_name="hybridd", library_version=__version__)
        wanted = ["downloads", "likes", "gated", "lastModified", "gguf", "siblings"]
        asked: dict[str, Any] = {"search": text, "filter": "gguf", "sort": sort, "limit": limit, "expand": wanted}
        try:
            response = get_session().get(
                f"{self.endpoint}/api/models", params=asked, headers=headers, timeout=API_SECONDS
            )
            hf_raise_for_status(response)
            return [_found(item) for item in response.json()[:limit]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise HubError(
                "bad_answer", f"{self.endpoint} does not answer a search as the Hub does: {error}"
            ) from error
        except Exception as error:
            raise self.explained(error, text) from error

    def repository(self, repo: str, revision: str | None = None) -> Repository:
        """Its GGUF models at a branch, tag or commit (absent: ``main``).

        Raises:
            InvalidRequest: ``repo`` or ``revision`` is no such name.
            HubError: see :mod:`hybridd.local.hub_errors`; ``no_gguf`` when it has no model for us.
        """
        names.repository(repo)
        if revision is not None:
            names.revision(revision)
        try:
            info = self._api.model_info(repo, revision=revision, files_metadata=True, timeout=API_SECONDS)
        except Exception as error:
            raise self.explained(error, repo) from error
        commit = info.sha or ""
        if not names.is_commit(commit):
            raise HubError("bad_answer", f"{self.endpoint} names no commit of {repo}; is it a Hub?")
        files = [_file(one) for one in info.siblings or [] if one.rfilename.lower().endswith(".gguf")]
        models, incomplete = group(files)
        if not any(model.kind == "model" for model in models):
            other = f"; incomplete: {', '.join(incomplete)}" if incomplete else ""
            raise HubError("no_gguf", f"{repo} holds no GGUF model{other}; `hybridd models search` finds some")
        return Repository(repo, commit, tuple(models), bool(info.gated), tuple(incomplete))

    def explained(self, error: Exception, repo: str, file: str = "") -> HubError:
        return explain(error, repo, has_token=bool(self.token), file=file)

    def url(self, repository: Repository, file: RepoFile) -> str:
        """The file's address at the repository's commit."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repository.repo, file.path, revision=repository.commit, endpoint=self.endpoint)

    def is_home(self, url: str) -> bool:
        """May the token be sent there? Only to the endpoint's own scheme, host and port."""
        mine, other = urlsplit(self.endpoint), urlsplit(url)
        return (mine.scheme, mine.hostname, mine.port) == (other.scheme, other.hostname, other.port)


def token_of(section: HuggingFaceSettings) -> str | None:
    """The token from where the configuration says it is; None when there is none, which is fine for public models.

    Raises:
        ConfigError: a place is configured and there is no key in it.
    """
    from hybridd.config import keys
    from hybridd.plugin.keys import KeyUnavailable, resolve_key

    reference, missing = keys.hugging_face(section.api_key)
    if missing is not None and section.api_key is None:
        return None
    try:
        return resolve_key(keys.as_config(reference))
    except KeyUnavailable as error:
        raise ConfigError(f"hugging_face.api_key: {error}", param="hugging_face.api_key") from error


def _file(sibling: Any) -> RepoFile:
    lfs = sibling.lfs
    sha256 = str(lfs.sha256) if lfs is not None else ""
    size = (lfs.size if lfs is not None else sibling.size) or 0
    return RepoFile(sibling.rfilename, int(size), sha256 if names.is_sha256(sha256) else "")


def _found(item: dict[str, Any]) -> Found:
    """One repository of a search; members that the Hub left out are None."""
    stated = item.get("gguf")
    gguf: dict[str, Any] = stated if isinstance(stated, dict) else {}
    files = [str(one.get("rfilename", "")) for one in item.get("siblings") or []]
    labels = [names.quantization(file) for file in files if file.lower().endswith(".gguf")]
    return Found(
        repo=str(item["id"]),
        downloads=item.get("downloads"),
        likes=item.get("likes"),
        gated=bool(item.get("gated")),
        updated=item.get("lastModified"),
        architecture=gguf.get("architecture"),
        parameters=gguf.get("total"),
        context=gguf.get("context_length"),
        quantizations=tuple(dict.fromkeys(label for label in labels if label)),
    )
