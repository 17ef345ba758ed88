"""E-mail, IP and MAC addresses."""

import ipaddress
import re

from tasks.data.personal.signs import Hint
from tasks.data.personal.spans import Offsets

_DOMAIN = re.compile(
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62})\.){1,8}"
    r"(?:[a-z]{2,24}|[A-Z]{2,24}|[A-Z][a-z]{1,23}))(?![A-Za-z0-9_\-@]|\.[A-Za-z0-9])"
)
_LOCAL_BACKWARDS = re.compile(r"[A-Za-z0-9._%+'\-]{1,64}")
_NOT_A_MAILBOX = frozenset(["this", "super", "self", "return", "git", "app"])
_PICTURE = re.compile(r"[0-9](?:\.[0-9])?x\.[a-z]{2,4}")

# A digit comes first and what must not stand before it is asked after it: so the search skips to digits.
_V4 = re.compile(
    r"[0-9](?<![0-9A-Za-z_].)(?<![0-9.\-][.\-].)(?<![A-Za-z][.\-].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_])(?![.\-][0-9])"
)
_V6 = re.compile(
    r"[23fF](?<![0-9A-Za-z:._].)[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.[0-9]{1,3}){3})?(?![0-9A-Za-z_:])"
)
_VERSION = Hint(
    r"(?i)(?:version|\bver|\bv|release|\bbuild|firmware|section|chapter|clause|§|oid|sdk|driver|upgraded? to|"
    r"版本|固件|驱动|章|节|条款|升级到|第)[\"' :：=.号为是]{0,4}$"
)
_CONTEXT_CHARS = 16
_NOBODYS = (0, 127, 255)
"""First numbers of addresses that say this host, loopback, broadcast or a netmask."""
_GIVEN_OUT = tuple(map(ipaddress.IPv6Network, ["2000::/3", "fc00::/7", "fe80::/10"]))

_MAC = re.compile(
    r"[0-9A-Fa-f](?<![0-9A-Za-z_:\-].)[0-9A-Fa-f]([:\-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}(?![0-9A-Za-z_]|[:\-][0-9A-Za-z])"
    r"|[0-9A-Fa-f](?<![0-9A-Za-z_.\-].)[0-9A-Fa-f]{3}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![0-9A-Za-z_]|\.[0-9A-Za-z])"
)
_MAC_LETTER = re.compile("[A-Fa-f]")


def find_emails(text: str) -> list[Offsets]:
    """Find e-mail addresses with a name in ASCII and a domain (RFC 5321 without quoted names)."""
    found: list[Offsets] = []
    for match in _DOMAIN.finditer(text):
        at = match.start()
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 64) : at][::-1])
        if local is None:
            continue
        name = local[0][::-1].lstrip(".'-")
        if not name or name[-1] in ".'" or name in _NOT_A_MAILBOX or _PICTURE.fullmatch(match[1]):
            continue
        found.append((at - len(name), match.end()))
    return found


def find_ipv4_addresses(text: str) -> list[Offsets]:
    """Find IPv4 addresses that may be somebody's: not loopback or a netmask, and no version number."""
    return [
        match.span()
        for match in _V4.finditer(text)
        if _is_someones(match[0]) and not _VERSION.is_in(text[max(0, match.start() - _CONTEXT_CHARS) : match.start()])
    ]


def find_ipv6_addresses(text: str) -> list[Offsets]:
    """Find IPv6 addresses in the ranges that are given out: global, unique local and link-local."""
    found: list[Offsets] = []
    for match in _V6.finditer(text):
        written = match[0]
        if written.endswith(":") and not written.endswith("::"):
            written = written[:-1]
        if _is_given_out(written):
            found.append((match.start(), match.start() + len(written)))
    return found


def find_mac_addresses(text: str) -> list[Offsets]:
    """Find MAC addresses with colons, hyphens (if a letter shows that they are hexadecimal) or in three groups."""
    found = []
    for match in _MAC.finditer(text):
        written = match[0]
        if written[2] != ":" and not _MAC_LETTER.search(written):
            continue
        if len(set(re.sub("[^0-9A-Fa-f]", "", written.lower()))) > 1:
            found.append(match.span())
    return found


def _is_someones(written: str) -> bool:
    try:
        return ipaddress.IPv4Address(written).packed[0] not in _NOBODYS
    except ValueError:
        return False


def _is_given_out(written: str) -> bool:
    try:
        address = ipaddress.IPv6Address(written)
    except ValueError:
        return False
    return any(address in network for network in _GIVEN_OUT)
