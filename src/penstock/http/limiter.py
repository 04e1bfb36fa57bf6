"""How often a caller may ask, and who a caller is. In memory, bounded, per process."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOPS_MAX: Final = 32


class TokenBuckets:
    """One bucket a key: `per_second` tokens flow in, at most one second's worth is kept, a request takes one.

    The longest unused bucket is forgotten when there are too many; a forgotten one starts full again.
    """

    def __init__(self, per_second: int, *, keys_max: int) -> None:
        self._rate = per_second
        self._keys_max = keys_max
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, now: float) -> bool:
        """Whether this request may pass at `now` (monotonic seconds)."""
        rate = self._rate
        if rate == 0:
            return True
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            left = float(rate)
            if len(self._buckets) >= self._keys_max:
                self._buckets.popitem(last=False)
        else:
            left = min(float(rate), bucket[0] + (now - bucket[1]) * rate)
        passes = left >= 1
        self._buckets[key] = (left - 1 if passes else left, now)
        return passes

    def __len__(self) -> int:
        return len(self._buckets)


class Sources:
    """The address that a request came from, seen through the proxies that the operator trusts."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        """Raises ValueError for what is no address or network."""
        self._trusted: Final = networks(tuple(trusted_proxies))

    def of(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """The rightmost address that is no trusted proxy; "" when there is none at all (a UNIX socket).

        A hop that cannot be read ends the walk: what stands left of it was not written by a proxy that is trusted.
        """
        if not forwarded or not self._trusted or not is_within(peer, self._trusted):
            return peer
        source = peer
        hops = b",".join(forwarded).decode("latin-1").split(",")
        for hop in reversed(hops[-_HOPS_MAX:]):
            address = parse_address(_without_port(hop.strip()))
            if address is None:
                return source
            source = str(address)
            if not is_within(source, self._trusted):
                return source
        return source


def bucket_key(source: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that one IPv6 customer holds."""
    if ":" not in source:
        return source
    address = parse_address(source)
    if isinstance(address, ipaddress.IPv6Address):
        return f"{int(address) >> 64:x}::/64"
    return source if address is None else str(address)


def is_within(source: str, nets: tuple[Net, ...]) -> bool:
    """Whether an address lies in one of the networks."""
    address = parse_address(source)
    return address is not None and any(address in net for net in nets)


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """An address, an IPv4 one written as IPv6 taken as what it is; None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def networks(texts: tuple[str, ...]) -> tuple[Net, ...]:
    """Addresses and CIDRs as networks. Raises ValueError for anything else."""
    return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in texts)


def _without_port(hop: str) -> str:
    """Some proxies write 192.0.2.1:443 or [2001:db8::1]:443."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
