"""Where the `openai` engine's server is and how it is reached: its address, the key, and a proxy that stands between.

The key is a secret of whoever runs nsd. Nothing that a server says is shown or kept before the key is masked in it:
servers repeat keys in errors, and a model may repeat what it was sent.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from nsd.plugins.errors import InputError

if TYPE_CHECKING:
    import httpx2

MASK = "***"
PLACEHOLDER = 12  # characters below which a key may stand in a text by chance, as EMPTY does
LONGEST_ADDRESS = 2000
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PROXIES = ("http", "https", "all", "no")


@dataclass(frozen=True, slots=True)
class Secret:
    """The key, None where none is sent."""

    key: str | None = None

    def out_of(self, text: str) -> str:
        """A text that is shown or kept, without the key, whole or as JSON, Python or an address writes it."""
        if not self.key:
            return text
        for form in {self.key, json.dumps(self.key)[1:-1], repr(self.key)[1:-1], quote(self.key, safe="")}:
            text = text.replace(form, MASK)
        return text

    def out_of_answer(self, text: str) -> str:
        """A model's text without the key. One of a few characters stays: `EMPTY` is a word before it is a secret."""
        return text if self.key is None or len(self.key) < PLACEHOLDER else self.out_of(text)


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is reached."""

    base_url: str
    secret: Secret
    concurrency: int
    timeout: float
    retries: int
    max_wait: float
    requests_per_minute: int | None
    tokens_per_minute: int | None

    @property
    def name(self) -> str:
        """The address, and the proxy by which the environment has it asked."""
        proxy = proxy_of(self.base_url)
        return self.base_url if proxy is None else f"{self.base_url} (by the proxy {proxy} of the environment)"

    def client(self) -> httpx2.AsyncClient:
        """What asks. Raises InputError where address or environment (proxies, certificates) allow none."""
        import httpx2

        headers = {"Authorization": f"Bearer {self.secret.key}"} if self.secret.key else {}
        # A try has its time as a whole: a server may send nothing until the answer is written to its end.
        timeout = httpx2.Timeout(None, connect=min(self.timeout, 30.0))
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        # Nobody else's proxy reaches this machine's own address, whatever NO_PROXY says.
        mounts = {f"all://{_bracketed(host)}": None} if (host := here(self.base_url)) else {}
        try:
            return httpx2.AsyncClient(
                base_url=self.base_url, headers=headers, timeout=timeout, limits=limits, mounts=mounts
            )
        except (httpx2.InvalidURL, ImportError, ValueError, OSError) as error:
            known = [*(f"{name}_PROXY" for name in map(str.upper, _PROXIES)), "SSL_CERT_FILE", "SSL_CERT_DIR"]
            given = [name for name in known if os.environ.get(name) or os.environ.get(name.lower())]
            said = f"; look at the environment's {', '.join(given)}" if given else ""
            reason = self.secret.out_of(without_password(" ".join(str(error).split())))
            raise InputError(f"engine openai: {self.base_url} cannot be asked: {reason}{said}") from error


def checked_address(given: str) -> str:
    """A base URL without the slash at its end. Raises ValueError for one that nothing could be sent to."""
    if len(given) > LONGEST_ADDRESS:
        raise ValueError(f"it has more than {LONGEST_ADDRESS} characters")
    if any(one.isspace() or not one.isprintable() for one in given):
        raise ValueError("it holds a space or a control character")
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("it may hold neither user, password nor query: name the key by api_key_env")
    _check_port(parts)
    _check_host(parts.hostname)
    return given.rstrip("/")


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port must be a number from 1 to 65535")


def _check_host(host: str) -> None:
    last = host.rstrip(".").rpartition(".")[2]
    try:
        if ":" in host or last.isdecimal():
            ipaddress.ip_address(host)
            return
        ascii_host = host.encode("idna").decode("ascii")
    except ValueError:
        ascii_host = ""
    if not _HOST.fullmatch(ascii_host) or len(ascii_host) > 253:
        raise ValueError(f"{host!r} cannot be the name of a host")


def here(address: str) -> str | None:
    """The host of an address where it is this machine by its loopback, else None."""
    host = urlsplit(address).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
    return host if loopback else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def proxy_of(address: str) -> str | None:
    """The proxy by which the environment has an address asked, without its password; None where there is none."""
    if here(address) is not None:
        return None
    parts, proxies = urlsplit(address), getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or proxy_bypass(parts.netloc):
        return None
    return without_password(found)


def without_password(text: str) -> str:
    """A text without user and password in the addresses that it names."""
    return re.sub(r"//[^/@\s]*@", "//", text)
