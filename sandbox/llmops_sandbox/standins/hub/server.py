"""The hub's HTTP API over a store: what downloading, listing and verifying need.

For files in LFS it answers plain HTTP clients as the real hub does: with a redirect to another origin (here, another
port), which serves the bytes and gets no token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from aiohttp import web

from llmops_sandbox.standins.hub.store import Commit, HubStore, StoredFile
from llmops_sandbox.standins.hub.transfer import send_file
from llmops_sandbox.standins.standin import StandIn

_REPO = r"/{owner:[\w.-]+}/{name:[\w.-]+}"
_API = "/api/models" + _REPO
BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - a message that clients compare with


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class _Asked:
    """A revision of a repository that the client may see."""

    repo: str
    revision: str
    commit: Commit


class HubServer(StandIn):
    """The stand-in hub. `page_size` is how many entries of a tree one page holds."""

    def __init__(self, store: HubStore, host: str = "127.0.0.1", port: int = 0, page_size: int = 1000) -> None:
        super().__init__(host, port)
        self.store = store
        self._page_size = page_size
        self._cdn_port = 0

    async def __aenter__(self) -> Self:
        self._cdn_port = await self.listen([web.get("/cdn" + _REPO + "/{rev}/{path:.+}", self._cdn)], 0)
        return await super().__aenter__()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The routes of the hub's API that this server has."""
        return [
            web.get("/api/whoami-v2", self._answer(self._whoami)),
            web.get(_API, self._answer(self._info)),
            web.get(_API + "/revision/{rev}", self._answer(self._info)),
            web.get(_API + "/refs", self._answer(self._refs)),
            web.get(_API + "/auth-check", self._answer(self._auth_check)),
            web.get(_API + "/tree/{rev}", self._answer(self._tree)),
            web.get(_API + "/tree/{rev}/{path:.*}", self._answer(self._tree)),
            web.post(_API + "/paths-info/{rev}", self._answer(self._paths_info)),
            web.get(_REPO + "/resolve/{rev}/{path:.+}", self._answer(self._resolve)),
        ]

    def error(self, status: int, code: str, message: str) -> web.Response:
        """An error with the headers by which clients tell errors apart."""
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        return web.json_response({"error": message}, status=status, headers=headers)

    def _answer(self, handler: _Handler) -> _Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except _Refused as refused:
                return self.error(refused.status, refused.code, refused.message)

        return answer

    # The client and its request

    def _token(self, request: web.Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or token not in self.store.tokens():
            raise _Refused(401, "", BAD_TOKEN)
        return token

    def _repo(self, request: web.Request) -> str:
        repo = f"{request.match_info['owner']}/{request.match_info['name']}"
        token = self._token(request)
        access = self.store.access(repo)
        if not self.store.exists(repo) or (access.mode == "private" and token not in access.tokens):
            # The hub hides from strangers whether a repository is missing or private.
            if token is None:
                raise _Refused(401, "RepoNotFound", "Invalid username or password.")
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return repo

    def _require_grant(self, request: web.Request, repo: str) -> None:
        access = self.store.access(repo)
        token = self._token(request)
        if access.mode != "gated" or token in access.tokens:
            return
        if token is None:
            raise _Refused(
                401,
                "GatedRepo",
                f"Access to model {repo} is restricted. You must have access to it and be authenticated to access "
                "it. Please log in.",
            )
        raise _Refused(
            403,
            "GatedRepo",
            f"Access to model {repo} is restricted and you are not in the authorized list. "
            f"Visit {self.url}/{repo} to ask for access.",
        )

    def _asked(self, request: web.Request) -> _Asked:
        repo = self._repo(request)
        revision = request.match_info.get("rev", "main")
        commit = self.store.resolve(repo, revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return _Asked(repo, revision, self.store.read_commit(repo, commit))

    # The answers

    async def _whoami(self, request: web.Request) -> web.Response:
        token = self._token(request)
        if token is None:
            raise _Refused(401, "", "Invalid username or password.")
        name = self.store.tokens()[token]
        access_token = {"displayName": name, "role": "read"}
        return web.json_response(
            {
                "type": "user",
                "id": name,
                "name": name,
                "fullname": name,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": access_token},
            }
        )

    async def _info(self, request: web.Request) -> web.Response:
        asked = self._asked(request)
        commit = asked.commit
        with_blobs = request.query.get("blobs", "").lower() in ("true", "1")
        mode = self.store.access(asked.repo).mode
        return web.json_response(
            {
                "_id": commit.id[:24],
                "id": asked.repo,
                "modelId": asked.repo,
                "author": asked.repo.partition("/")[0],
                "sha": commit.id,
                "lastModified": _when(commit),
                "createdAt": _when(commit),
                "private": mode == "private",
                "gated": "manual" if mode == "gated" else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [_sibling(path, file, with_blobs) for path, file in commit.files.items()],
            }
        )

    async def _refs(self, request: web.Request) -> web.Response:
        refs = self.store.refs(self._repo(request))
        answer: dict[str, list[dict[str, str]]] = {
            "branches": [_ref("heads", name, commit) for name, commit in sorted(refs.branches.items())],
            "converts": [],
            "tags": [_ref("tags", name, commit) for name, commit in sorted(refs.tags.items())],
        }
        if "include_prs" in request.query:
            answer["pullRequests"] = []
        return web.json_response(answer)

    async def _auth_check(self, request: web.Request) -> web.Response:
        self._require_grant(request, self._repo(request))
        return web.Response(text="OK")

    async def _tree(self, request: web.Request) -> web.Response:
        asked = self._asked(request)
        folder = request.match_info.get("path", "").strip("/")
        recursive = request.query.get("recursive", "").lower() in ("true", "1")
        expand = request.query.get("expand", "").lower() in ("true", "1")
        entries = _tree(asked.commit, folder, recursive)
        if folder and not entries:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist on {asked.revision!r}")
        limit = min(int(request.query.get("limit", self._page_size)), self._page_size)
        start = int(request.query.get("cursor", 0))
        page = [_entry(path, file, asked.commit, expand) for path, file in entries[start : start + limit]]
        response = web.json_response(page)
        if start + limit < len(entries):
            following = request.url.update_query(cursor=str(start + limit), limit=str(limit))
            response.headers["Link"] = f'<{following}>; rel="next"'
        return response

    async def _paths_info(self, request: web.Request) -> web.Response:
        asked = self._asked(request)
        form = await request.post()
        wanted = {str(path) for path in form.getall("paths", [])}
        expand = str(form.get("expand", "")).lower() in ("true", "1")
        entries = _tree(asked.commit, "", recursive=True)
        return web.json_response([_entry(path, file, asked.commit, expand) for path, file in entries if path in wanted])

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        asked = self._asked(request)
        self._require_grant(request, asked.repo)
        path = request.match_info["path"]
        commit = asked.commit
        file = commit.files.get(path)
        headers = {"X-Repo-Commit": commit.id}
        if file is None:
            missing = self.error(404, "EntryNotFound", "Entry not found")
            missing.headers.update(headers)
            return missing
        headers["Content-Disposition"] = _disposition(path)
        if file.sha256 is None:
            headers["ETag"] = f'"{file.blob_id}"'
            return await send_file(request, self.store.file(asked.repo, commit.id, path), file.size, headers)
        headers["X-Linked-Etag"] = f'"{file.sha256}"'
        headers["X-Linked-Size"] = str(file.size)
        headers["Accept-Ranges"] = "bytes"
        headers["Location"] = str(
            request.url.origin()
            .with_port(self._cdn_port)
            .joinpath("cdn", *asked.repo.split("/"), commit.id, *path.split("/"))
        )
        return web.Response(status=302, headers=headers)

    async def _cdn(self, request: web.Request) -> web.StreamResponse:
        repo = f"{request.match_info['owner']}/{request.match_info['name']}"
        path = request.match_info["path"]
        commit = self.store.resolve(repo, request.match_info["rev"])
        file = self.store.read_commit(repo, commit).files.get(path) if commit else None
        if commit is None or file is None:
            return web.Response(status=404, text="no such object")
        headers = {"ETag": f'"{file.sha256}"', "Content-Disposition": _disposition(path)}
        return await send_file(request, self.store.file(repo, commit, path), file.size, headers)


def _when(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _disposition(path: str) -> str:
    name = path.rpartition("/")[2]
    return f"inline; filename*=UTF-8''{quote(name)}; filename=\"{quote(name)}\";"


def _ref(kind: str, name: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _sibling(path: str, file: StoredFile, with_blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        sibling |= {"blobId": file.blob_id, "size": file.size}
        if file.sha256:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return sibling


def _tree(commit: Commit, folder: str, recursive: bool) -> list[tuple[str, StoredFile | None]]:
    """Files, and folders (None), below `folder`."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, StoredFile | None] = {}
    for path, file in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            entries[prefix + "/".join(parts[:depth])] = None
        if recursive or len(parts) == 1:
            entries[path] = file
    return sorted(entries.items())


def _entry(path: str, file: StoredFile | None, commit: Commit, expand: bool) -> dict[str, Any]:
    if file is None:
        entry: dict[str, Any] = {"type": "directory", "oid": commit.id, "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path}
        if file.sha256:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    if expand:
        title = commit.message.partition("\n")[0]
        entry["lastCommit"] = {"id": commit.id, "title": title, "date": _when(commit)}
    return entry
