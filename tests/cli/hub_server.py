"""A hub that answers as Hugging Face's does, on loopback: an API with pages, files that are redirected to a store on a second
port, and whatever can go wrong on the way. For tests of `hetero pull`."""
import hashlib
import http.server
import json
import re
import socket
import threading
import time
import urllib.parse


class Repository:
    def __init__(self, files, commit, small=()):
        """files: {path: bytes}; those named in small are kept by Git itself, not as large files."""
        self.files, self.commit, self.small = dict(files), commit, set(small)
        self.sizes, self.sums = {}, {}  # what the listing says in place of what is true
        self.entries = None  # the whole listing in place of one made from files
        self.gate = None  # (status, X-Error-Code) for whoever has no good token

    def sha256(self, path):
        return self.sums.get(path) or hashlib.sha256(self.files[path]).hexdigest()

    def oid(self, path):
        data = self.files[path]
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def etag(self, path):
        return self.oid(path) if path in self.small else self.sha256(path)

    def listing(self):
        if self.entries is not None:
            return self.entries
        made = [{"type": "directory", "path": "folder", "size": 0, "oid": "0" * 40}]
        for path, data in self.files.items():
            size = self.sizes.get(path, len(data))
            entry = {"type": "file", "path": path, "size": size, "oid": self.oid(path)}
            if path not in self.small:
                entry["lfs"] = {"oid": self.sha256(path), "size": size, "pointerSize": 135}
            made.append(entry)
        return made


class Hub:
    def __init__(self):
        self.repositories, self.requests, self.page = {}, [], 1000
        self.api_faults, self.file_faults = [], []  # one is taken for each request: fault(handler) or fault(handler, data, start)
        self.store_etag = None  # of all files of the store, in place of their own
        self.token = "hf_SECRETtoken0123456789"
        self.redirect = None  # where files are, in place of the store
        self.lock = threading.Lock()
        self.servers = [self.serve(self.hub), self.serve(self.store)]
        self.endpoint, self.store_endpoint = ("http://127.0.0.1:%d" % s.server_address[1] for s in self.servers)

    def serve(self, answer):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def do_GET(self):
                with hub.lock:
                    hub.requests.append((answer.__name__, self.path, dict(self.headers)))
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def do_HEAD(self):  # as huggingface_hub asks first
                self.do_GET()

            def log_message(self, *arguments):
                pass

            def say(self, code, body=b"", **headers):
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", len(body))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *arguments: None
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name, files, commit="c0" * 20, **more):
        self.repositories[name] = Repository(files, commit, **more)
        return self.repositories[name]

    def asked(self, what):
        """Paths that were asked for at the hub or at the store."""
        with self.lock:
            return [path for where, path, _ in self.requests if where == what]

    def ranges(self):
        with self.lock:
            return [headers.get("Range") for where, _, headers in self.requests if where == "store"]

    @staticmethod
    def take(faults):
        return faults.pop(0) if faults else None

    def hub(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        fault = self.take(self.api_faults)
        if fault:
            return fault(handler)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?", url.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path)
        found = api or file
        repository = self.repositories.get(found[1]) if found else None
        if not repository:
            return handler.say(401 if found else 404, X_Error_Code="RepoNotFound")
        if repository.gate and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return handler.say(repository.gate[0], X_Error_Code=repository.gate[1])
        revision = urllib.parse.unquote(found[3] if api else found[2])
        if revision not in ("main", "refs/pr/1", repository.commit):
            return handler.say(404, X_Error_Code="RevisionNotFound")
        if not api:
            return self.send_on(handler, repository, urllib.parse.unquote(file[3]))
        if api[2] == "revision":
            return handler.say(200, json.dumps({"id": api[1], "sha": repository.commit}).encode(),
                               Content_Type="application/json")
        begin = int(urllib.parse.parse_qs(url.query).get("cursor", ["0"])[0])
        all_entries = repository.listing()
        more = {}
        if begin + self.page < len(all_entries):
            more["Link"] = f'<{self.endpoint}{url.path}?recursive=true&cursor={begin + self.page}>; rel="next"'
        return handler.say(200, json.dumps(all_entries[begin:begin + self.page]).encode(), **more)

    def send_on(self, handler, repository, path):
        if path not in repository.files:
            return handler.say(404, X_Error_Code="EntryNotFound")
        name = next(name for name, r in self.repositories.items() if r is repository)
        to = self.redirect or f"{self.store_endpoint}/{name}/{urllib.parse.quote(path)}?signature=abc"
        return handler.say(302, Location=to, X_Repo_Commit=repository.commit, X_Linked_Etag=f'"{repository.etag(path)}"',
                           X_Linked_Size=str(repository.sizes.get(path, len(repository.files[path]))))

    def store(self, handler):
        _, owner, name, path = urllib.parse.unquote(urllib.parse.urlsplit(handler.path).path).split("/", 3)
        data = self.repositories[f"{owner}/{name}"].files[path]
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        fault = self.take(self.file_faults)
        if fault:
            return fault(handler, data, start)
        return self.send_file(handler, data, start)

    def send_file(self, handler, data, start, stop=None):
        """As a good store does; stop: the connection breaks there."""
        etag = self.store_etag or '"%s"' % hashlib.md5(data).hexdigest()
        condition = handler.headers.get("If-Range")
        if condition and condition != etag:
            start = 0
        if start >= len(data) > 0:
            return handler.say(416, Content_Range=f"bytes */{len(data)}")
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", len(data) - start)
        handler.end_headers()
        handler.wfile.write(data[start:] if stop is None else data[start:stop])
        if stop is not None:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        return None

    # ---- faults of files

    def breaks_at(self, stop):
        return lambda handler, data, start: self.send_file(handler, data, start, stop)

    def stalls_at(self, stop, seconds):
        def stall(handler, data, start):
            handler.send_response(200)
            handler.send_header("Content-Length", len(data))
            handler.end_headers()
            handler.wfile.write(data[:stop])
            handler.wfile.flush()
            time.sleep(seconds)
            handler.close_connection = True
        return stall

    def ignores_range(self, stop=None):
        return lambda handler, data, start: self.send_file(handler, data, 0, stop)

    def answers(self, code, **headers):
        return lambda handler, data=None, start=0: handler.say(code, b"no", **headers)

    def sends(self, other):
        """Other bytes than it has, for all or for the part asked for."""
        return lambda handler, data, start: self.send_file(handler, other, start)

    def ends_early(self, stop):
        """Says that it has all, and that this is all."""
        def early(handler, data, start):
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(data[:stop])
            handler.close_connection = True
        return early

    def never_ends(self, size):
        def endless(handler, data, start):
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            for _ in range(size // 65536):
                handler.wfile.write(bytes(65536))
            handler.close_connection = True
        return endless
