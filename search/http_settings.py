"""What is said about servers: where they are, which model they serve, how they are asked."""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from treeward.search.errors import BadInput

SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How servers are asked; section `backend.` where the policy is a URL."""

    tokenizer: str | None = None
    """A folder or hub id with the model's tokenizer; None takes what `--model` names."""

    timeout: float = 120.0
    """Seconds a call may go without a new token before it is given up; greater than 0."""

    retries: int = 6
    """Attempts after the first that a call may have; at least 0."""

    max_in_flight: int = 256
    """Calls that one server may have at once; how many it has adapts below that."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        if not 0 < self.timeout < float("inf"):
            raise BadInput(f"backend.timeout must be greater than 0, got {self.timeout!r}")
        if self.retries < 0:
            raise BadInput(f"backend.retries must be at least 0, got {self.retries!r}")
        if self.max_in_flight < 1:
            raise BadInput(f"backend.max_in_flight must be at least 1, got {self.max_in_flight!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Holds what a server tells about a model that it serves."""

    name: str
    """What calls name it by."""

    root: str | None
    """What it was loaded from; None where the server does not tell."""

    context: int | None
    """Tokens that prompt and completion may have together; None where it does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """Holds one model behind some servers."""

    urls: tuple[str, ...]
    """The servers' base URLs, without a slash at the end."""

    served: Served
    settings: HttpSettings


def is_url(policy: str) -> bool:
    """Returns whether a policy's name is the URL of a server, or several with commas between."""
    return policy.startswith(SCHEMES)


def read_urls(policy: str) -> tuple[str, ...]:
    """Returns the base URLs that `--policy` lists.

    Raises:
        BadInput: One is no base URL, or stands there twice.
    """
    urls = tuple(part.strip().rstrip("/") for part in policy.split(","))
    for url in urls:
        parts = _parts(url)
        if parts is None or parts.query or parts.fragment:
            raise BadInput(f"policy {url!r} must be a base URL such as http://host:8000/v1")
        if not parts.path:
            raise BadInput(f"policy {url!r} has no path; did you mean {url + '/v1'!r}?")
        if urls.count(url) > 1:
            raise BadInput(f"policy {url!r} is listed twice; give each server once")
    return urls


def _parts(url: str) -> SplitResult | None:
    """Returns what a server's URL is made of; None where it is none."""
    if not url.startswith(SCHEMES) or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:  # A port or an address that is none.
        return None


def http_identity_of(fingerprint: str, service: HttpService) -> dict[str, str | int]:
    """Returns what the replies of a service depend on, as far as its servers tell.

    Where they are is no part of it: other servers of the same model go on with a run.

    Args:
        fingerprint: What the local tokenizer hashes to.
        service: The model behind its servers.
    """
    return {
        "backend": "http",
        "fingerprint": fingerprint,
        "served": service.served.name,
        "root": service.served.root or "",
    }
