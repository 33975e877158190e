"""Native tables as messages, without a kernel: what tests/kernel/test_native_netlink.py cannot show."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.kernel.native import _refused
from istio_iptables.kernel.netlink import transaction
from istio_iptables.kernel.netlink.messages import NetlinkError, pack_attribute
from istio_iptables.kernel.netlink.nf_tables import edit, sets
from istio_iptables.rules.lists import union
from istio_iptables.rules.model import RETURN, Rule
from istio_iptables.rules.nftables.model import Addresses, NativeChain, NativeTable

HEADER = bytes(4)  # struct nfgenmsg


def listed(elements: list[bytes]) -> bytes:
    """Return elements as the kernel lists them: numbered with 1, and nothing marked as nested."""
    plain = [element[:2] + b"\1\0" + element[4:] for element in elements]
    return HEADER + pack_attribute(3, b"".join(pack_attribute(1, element) for element in plain))


@pytest.mark.parametrize("kind", ["ipv4_addr", "ipv6_addr", "inet_service", "uid"])
@given(data=st.data())
def test_intervals_are_read_in_any_order(kind: str, data: st.DataObject):
    key = sets.KEY_TYPES[kind]
    most = (1 << 8 * key.size) - 1
    ends = st.integers(0, 40) | st.integers(most - 40, most) | st.integers(0, most)
    pairs = st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair)))
    ranges = union(data.draw(st.lists(pairs, min_size=1, max_size=12)))
    elements = sets._intervals(key, ranges)
    orders = [elements[::-1], elements, data.draw(st.permutations(elements))]
    for order in orders:
        assert sets.ranges_of([listed(order)], key, interval=True) == ranges
    cut = data.draw(st.integers(0, len(elements)))
    parts = [listed(part) for part in (orders[0][:cut], orders[0][cut:])]
    assert sets.ranges_of(parts, key, interval=True) == ranges


def test_what_is_no_list_of_intervals_is_not_taken_for_one():
    key = sets.KEY_TYPES["inet_service"]
    first, *others = sets._intervals(key, ((5, 9), (11, 12), (20, 30)))
    for elements in ([*others[1:]], [first, *others[1:]], [first, *others[:2], *others[3:]]):
        for order in (elements, elements[::-1]):
            assert sets.ranges_of([listed(order)], key, interval=True) is None
    assert sets.ranges_of([listed([first])], key, interval=True) == ()
    with_timeout = others[0] + pack_attribute(4, bytes(8))
    assert sets.ranges_of([listed([first, with_timeout, *others[1:]])], key, interval=True) is None
    assert sets.ranges_of([listed([first, *others])], key, interval=False) is None


def test_a_long_list_is_split_into_messages_that_an_attribute_can_hold():
    ranges = tuple((number * 512, number * 512 + 200) for number in range(20_000))
    rule = Rule((Addresses("destination", "ipv4", ranges),), RETURN)
    table = NativeTable("istio-proxy-nat", (NativeChain("istio-output", None, (rule,)),))
    [messages] = edit.messages((), (table,), sets_first=False)
    contents = [body for kind, _, _, body in messages if kind == transaction.NEWSETELEM]
    assert len(contents) > 10
    assert max(map(len, contents)) < 1 << 16


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EPERM, "only the owner of a table may change it"),
        (errno.ENOENT, "needs Linux 5.2"),
        (errno.EOPNOTSUPP, "needs Linux 5.2"),
        (errno.EMSGSIZE, "net.core.wmem_max"),
        (errno.ENOMEM, "limits.memory"),
        (errno.EIO, "run again"),
    ],
)
def test_what_the_kernel_refuses_is_told_with_what_to_do(number: int, remedy: str):
    told = _refused(NetlinkError(number, f"write: {os.strerror(number)}"))
    assert told.cause == f"write: {os.strerror(number)}"
    assert remedy in told.remedy


def test_the_generation_after_the_last_number_is_one():
    assert [transaction.following(number) for number in (1, 2**32 - 2, 2**32 - 1)] == [2, 2**32 - 1, 1]
