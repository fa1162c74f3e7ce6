"""Gossip, sealed: each datagram is authentic, unreadable to strangers, and opened at most once.

    version 1 | key id 4 | uid 8 | generation 4 | boot id 16 | counter 8 | ciphertext, tag 16

The clear header and the cluster's name are authenticated (AAD). The key of a start of a node
is HKDF of the cluster's key with all that stands before the counter, of which the 128-bit boot
id was drawn at that start; the nonce is the counter, from 1. So no nonce repeats under a key,
and nothing is coordinated.

Replays. For each boot the highest counter and a window of the 1,024 below it are remembered
(as in IPsec, RFC 4303, section 3.4.3): what is in the window and was opened, or is older than
it, is refused. Only what authenticates is remembered, so strangers can't fill the memory. It
holds 16,384 boots. When the one not heard for longest is dropped, its generation becomes
refused for its node, this boot's datagrams with it: nothing recorded of a dropped boot can be
opened again, as long as its node is among the last 65,536 with a dropped one. A node that
lives and is refused for that is declared down, and comes back with a higher generation; the
bound is far above the size of a cluster, so it does not come to that.

What the window can't tell: a datagram that was meant for somebody else, or was sent before this
node started, and reaches it late. It is authentic and opened once; that what it says is old,
membership sees by generation and incarnation.

Rubbish costs little: length, version, key id and window are looked at before any key is derived.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envd.core.errors import Unauthenticated
from envd.ports import Opened, Rng
from envd.security.cluster_secret import KEY_ID_BYTES, ClusterKey, SharedSecret

VERSION: Final = 1
BOOT_ID_BYTES: Final = 16
WINDOW: Final = 1024
MAX_BOOTS: Final = 16_384
MAX_GENERATION: Final = (1 << 32) - 1
_FLOORS_PER_BOOT: Final = 4
_TAG_BYTES: Final = 16
_COUNTER_BYTES: Final = 8
_MAX_COUNTER: Final = (1 << 8 * _COUNTER_BYTES) - 1
_PAD: Final = bytes(12 - _COUNTER_BYTES)  # A nonce of AES-GCM is 12 bytes.
_PREFIX: Final = Struct(f">B{KEY_ID_BYTES}sQI{BOOT_ID_BYTES}s")
_HEADER_BYTES: Final = _PREFIX.size + _COUNTER_BYTES
_MASK: Final = (1 << WINDOW) - 1
OVERHEAD_BYTES: Final = _HEADER_BYTES + _TAG_BYTES
"""How much longer a datagram is than its payload."""


@dataclass(slots=True)
class _Boot:
    """What is known of one start of one node; bit i of `seen` is the counter `top` - i."""

    uid: int
    generation: int
    cipher: AESGCM
    top: int = 0
    seen: int = 0

    def is_new(self, counter: int) -> bool:
        behind = self.top - counter
        return behind < 0 or (behind < WINDOW and not self.seen >> behind & 1)

    def note(self, counter: int) -> None:
        ahead = counter - self.top
        if ahead > 0:
            self.seen = (self.seen << ahead | 1) & _MASK if ahead < WINDOW else 1
            self.top = counter
        else:
            self.seen |= 1 << -ahead


class SealedDatagrams:
    """The DatagramSealer of this start of this node; `boot_id` is drawn here.

    `boots` bounds how many starts of nodes are remembered.
    """

    def __init__(
        self,
        secret: SharedSecret,
        cluster_name: str,
        uid: int,
        generation: int,
        rng: Rng,
        *,
        boots: int = MAX_BOOTS,
    ) -> None:
        self._keys = {key.id: key for key in secret.keys}
        self._sealing = secret.keys[0]
        self._name = cluster_name.encode()
        self._rng = rng
        self._max_boots = boots
        self._boots: OrderedDict[bytes, _Boot] = OrderedDict()
        self._floors: OrderedDict[int, int] = OrderedDict()
        self.become(uid, generation)

    def become(self, uid: int, generation: int) -> None:
        """Seal as this identity from now on, with a new boot id and key."""
        if not 0 <= generation <= MAX_GENERATION:
            raise ValueError(f"a generation is at most {MAX_GENERATION}")
        self.boot_id = self._rng.token_bytes(BOOT_ID_BYTES)
        self._prefix = _PREFIX.pack(VERSION, self._sealing.id, uid, generation, self.boot_id)
        self._counter = 0
        self._cipher = _cipher(self._sealing, self._prefix)
        # What comes back to its sender is refused as if it had been opened before.
        own = _Boot(uid, generation, self._cipher, _MAX_COUNTER, _MASK)
        self._remember(self._prefix, own)

    def seal(self, payload: bytes) -> bytes:
        self._counter += 1
        counter = self._counter.to_bytes(_COUNTER_BYTES)
        header = self._prefix + counter
        return header + self._cipher.encrypt(_PAD + counter, payload, header + self._name)

    def open(self, datagram: bytes) -> Opened:
        if len(datagram) < OVERHEAD_BYTES:
            raise _refused("too short")
        prefix, counter = datagram[: _PREFIX.size], datagram[_PREFIX.size : _HEADER_BYTES]
        version, key_id, uid, generation, boot_id = _PREFIX.unpack(prefix)
        key = self._keys.get(key_id)
        if version != VERSION or key is None:
            raise _refused("of another version, or under another cluster's secret")
        number, boot = int.from_bytes(counter), self._boots.get(prefix)
        if generation < self._floors.get(uid, 0) or (boot and not boot.is_new(number)):
            raise _refused("a repeat, or too old")
        boot = boot or _Boot(uid, generation, _cipher(key, prefix))
        aad = prefix + counter + self._name
        try:
            payload = boot.cipher.decrypt(_PAD + counter, datagram[_HEADER_BYTES:], aad)
        except InvalidTag:
            raise _refused("not what a member sealed") from None
        boot.note(number)
        self._remember(prefix, boot)
        return Opened(uid, generation, boot_id, payload)

    def _remember(self, prefix: bytes, boot: _Boot) -> None:
        self._boots[prefix] = boot
        self._boots.move_to_end(prefix)
        if len(self._boots) > self._max_boots:
            _, dropped = self._boots.popitem(last=False)
            floor = max(self._floors.pop(dropped.uid, 0), dropped.generation + 1)
            self._floors[dropped.uid] = floor
            if len(self._floors) > _FLOORS_PER_BOOT * self._max_boots:
                self._floors.popitem(last=False)


def _cipher(key: ClusterKey, prefix: bytes) -> AESGCM:
    return AESGCM(key.subkey(b"datagrams", prefix))


def _refused(what: str) -> Unauthenticated:
    return Unauthenticated(f"a datagram is refused: it is {what}", reason="DATAGRAM_REFUSED")
