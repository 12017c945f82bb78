"""What W&B's side of a test needs: a reader of its offline recordings and a stand-in for its service on 127.0.0.1."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEAD = 32768, 7
KEY = "a" * 40  # made up, of the right length


def raw_records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes.

    Stops at a record that W&B's own process has only begun to write.
    """
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = HEAD, b""
    while place + HEAD <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEAD:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEAD])
        if kind == 0 or place + HEAD + length > len(data):
            return
        parts += data[place + HEAD : place + HEAD + length]
        place += HEAD + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


@dataclass
class Recording:
    """One offline recording as W&B will upload it."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_recording(path: Path) -> Recording:
    """Replays the records of one .wandb file."""
    found = Recording()
    for raw in raw_records(path):
        record = wandb_internal_pb2.Record.FromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            found.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            items = record.history.item
            found.history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        elif kind == "summary":
            updates = record.summary.update
            found.summary |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def recordings(run: Path, *, patience: float = 20) -> dict[str, Recording]:
    """The recordings that `wandb sync <run>/wandb` would upload, by job type.

    W&B's own process writes the last records shortly after a run has ended: waits for them up to `patience` seconds.
    """
    end = time.monotonic() + patience
    while True:
        found = [read_recording(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]
        if all(one.exit_code is not None for one in found) or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert len({one.run.job_type for one in found}) == len(found), "a phase was recorded twice"
    return {one.run.job_type: one for one in found}


class Service:
    """Answers what wandb asks of its service and keeps what it is told.

    Attributes:
        fault: what it does in place of an answer: `hang` for 60 s, `500`, `reset` the connection; "" = it answers.
        delay: seconds that `hang` takes.

    Args:
        refuse: paths that are answered with 401.
    """

    fault, delay = "", 60.0

    def __init__(self, *, refuse: str = "nothing") -> None:
        self.queries: list[tuple[str, dict[str, Any]]] = []
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.view: dict[str, Any] = {}  # the report last saved
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: Any) -> None:
                pass

            def reply(self, value: dict[str, Any], code: int = 200) -> None:
                body = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def fails(self) -> bool:
                if service.fault == "hang":
                    time.sleep(service.delay)
                if service.fault == "500":
                    self.reply({"errors": [{"message": "made-up fault"}]}, 500)
                if service.fault == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                return bool(service.fault)

            def do_PUT(self) -> None:
                self.body()
                if not self.fails():
                    self.reply({})

            def do_POST(self) -> None:
                body = self.body()
                if self.fails():
                    return
                if refuse in self.path:
                    self.reply({"errors": [{"message": "made-up key refused"}]}, 401)
                elif self.path == "/graphql":
                    self.reply({"data": service.answer(json.loads(body))})
                else:
                    if self.path.endswith("file_stream"):
                        service.keep(self.path.split("/")[4], json.loads(body))
                    self.reply({"exitcode": None, "limits": {}})

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *words: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def keep(self, run: str, posted: dict[str, Any]) -> None:
        lines = posted.get("files", {}).get("wandb-history.jsonl")
        if lines:
            start, rows = lines["offset"], [json.loads(line) for line in lines["content"]]
            self.history.setdefault(run, [])[start : start + len(rows)] = rows

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        name, given = (
            asked.get("operationName") or asked["query"].split("(")[0].split()[-1],
            asked.get("variables") or {},
        )
        self.queries.append((name, given))
        project = {"id": "p", "name": given.get("project") or "ssat", "entity": {"id": "e", "name": "me"}}
        if name == "Viewer":
            viewer = {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer}
        if name == "UpsertBucket":
            bucket = {"id": "b", "name": given["name"], "displayName": given.get("displayName"), "config": "{}"}
            known = len(self.history.get(given["name"], []))
            bucket |= {"project": project, "historyLineCount": known}
            return {"upsertBucket": {"bucket": bucket, "inserted": not known}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "GetProjects":
            return {"models": {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}}
        if name == "upsertView":
            view = {"id": "Vmlldzox", "type": "runs", "name": given["name"], "displayName": given["displayName"]}
            view |= {"description": "", "spec": given["spec"], "updatedAt": None}
            view |= {"project": {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}}
            self.view = view
            return {"upsertView": {"view": view, "inserted": True}}
        if name == "SpecificReport":
            return {"view": self.view | {"createdAt": None}}
        return {}
