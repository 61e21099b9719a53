"""A loopback hub that takes uploads: who-am-I, create, pre-upload, Git LFS and commit, all of it with the token only.

    with UploadHub(token="hf_right", owner="me", orgs=("lab",)) as hub:
        ...  # hub.environment(home, token="hf_right")
        hub.files["me/whisper"]["config.json"], hub.settings["me/whisper"]["private"], hub.puts

Files come by Git LFS (HF_HUB_DISABLE_XET=1 in the client's environment); Xet's own protocol is not spoken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from tests.support.hub_server import Handler, Hub, hub_environment

LARGE = 2_000  # bytes from which a file goes by LFS


class UploadHub(Hub):
    """`refuses` are owners that answer 403, `breaks_after` the number of LFS files that are taken before a failure,
    `open_orgs` owners whose repositories are public whatever is asked for."""

    def __init__(
        self,
        token: str,
        owner: str = "me",
        orgs: tuple[str, ...] = (),
        refuses: tuple[str, ...] = (),
        role: str = "write",
        breaks_after: int | None = None,
        open_orgs: tuple[str, ...] = (),
    ) -> None:
        self.owner = owner
        self.orgs = orgs
        self.refuses = refuses
        self.role = role
        self.open_orgs = open_orgs
        self.breaks_after = breaks_after
        self.files: dict[str, dict[str, bytes]] = {}
        self.settings: dict[str, dict[str, object]] = {}
        self.stored: dict[str, bytes] = {}
        self.puts: list[str] = []
        super().__init__({}, token=token)

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        return {**hub_environment(self.url, home, token), "HF_HUB_DISABLE_XET": "1"}


class _Uploads(Handler):
    hub: UploadHub

    def _is_authorized(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._fail(401, None, "Invalid username or password.")
        return False

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"GET {path}")
        if path == "/api/whoami-v2":
            if self._is_authorized():
                orgs = [{"name": name} for name in self.hub.orgs]
                auth = {"accessToken": {"role": self.hub.role}}
                self._json({"name": self.hub.owner, "type": "user", "orgs": orgs, "auth": auth})
            return
        name = path.removeprefix("/api/models/")
        if name in self.hub.settings:
            if self._is_authorized():
                self._json({"id": name, "modelId": name, "private": self.hub.settings[name]["private"], "siblings": []})
            return
        self._fail(404, "RepoNotFound", "no such repository")

    def do_HEAD(self) -> None:
        self._fail(404, "EntryNotFound", "Entry not found")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        oid = self.path.rpartition("/")[2]
        if self.hub.breaks_after is not None and len(self.hub.puts) >= self.hub.breaks_after:
            self._fail(400, None, "out of order")  # a status that the client does not try again at once
            return
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self.hub.puts.append(oid)
        self._send(200, b"", {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            head = yaml.safe_load(text.split("---\n")[1])
            wrong = [] if isinstance(head, dict) and "model-index" in head else [{"message": "no model-index"}]
            self._send(400 if wrong else 200, json.dumps({"errors": wrong, "warnings": []}).encode(), {})
        elif self._is_authorized():
            self._written(path, body)

    def _written(self, path: str, body: bytes) -> None:
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            self._preupload(json.loads(body)) if match[2] == "preupload" else self._commit(match[1], body)
        elif re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            self._json(
                {"transfer": "basic", "objects": [self._upload_action(item) for item in json.loads(body)["objects"]]}
            )
        else:
            self._fail(404, "RepoNotFound", "no such route")

    def _create(self, request: dict) -> None:
        owner = request.get("organization") or self.hub.owner
        name = f"{owner}/{request['name']}"
        if owner in self.hub.refuses or owner not in (self.hub.owner, *self.hub.orgs):
            self._fail(403, None, "You don't have the rights to create a model under this namespace")
        elif name in self.hub.files:
            taken = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            self._send(409, json.dumps(taken).encode(), {})
        else:
            self.hub.files[name] = {}
            # The client's key has changed over the years; both mean the same.
            private = request.get("private", request.get("visibility") == "private") and owner not in self.hub.open_orgs
            self.hub.settings[name] = {"private": private}
            self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _preupload(self, request: dict) -> None:
        files = [
            {"path": item["path"], "uploadMode": "lfs" if item["size"] > LARGE else "regular", "shouldIgnore": False}
            for item in request["files"]
        ]
        self._json({"files": files})

    def _upload_action(self, item: dict) -> dict:
        """Nothing to do for what is stored already: that is what makes an upload resumable."""
        if item["oid"] in self.hub.stored:
            return item
        return {**item, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}}

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.hub.files[name][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.hub.files[name][value["path"]] = self.hub.stored[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})


UploadHub.handler = _Uploads
