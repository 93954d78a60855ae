//! core: which addresses belong to the public internet: the only ones that an address chosen by a tenant may lead to.
//!
//! By what is allowed for IPv6 (global unicast) and by what is refused for IPv4, after IANA's registries of special-purpose
//! addresses. Whatever carries an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) is refused whole: it could
//! lead to any of the refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are not the internet: this host and network, private, carrier's NAT, loopback, link-local (where
/// clouds keep their secrets), protocol assignments, documentation, 6to4 relays, benchmarks, multicast, reserved.
const REFUSED_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Global unicast, which mapped, NAT64, unique local, link-local and multicast addresses are not.
const ALLOWED_V6: ([u16; 2], u32) = ([0x2000, 0], 3);

/// What of it is special: protocol assignments (Teredo, benchmarks, ORCHID), documentation, 6to4, documentation again.
const REFUSED_V6: [([u16; 2], u32); 4] = [([0x2001, 0], 23), ([0x2001, 0x0db8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

/// Whether an address is one of the public internet's.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !REFUSED_V4.iter().any(|(network, bits)| within_v4(address, *network, *bits)),
        IpAddr::V6(address) => {
            let within = |(network, bits): &([u16; 2], u32)| within_v6(address, *network, *bits);
            within(&ALLOWED_V6) && !REFUSED_V6.iter().any(within)
        }
    }
}

fn within_v4(address: Ipv4Addr, network: [u8; 4], bits: u32) -> bool {
    (address.to_bits() ^ u32::from_be_bytes(network)) >> (32 - bits) == 0
}

/// Networks of at most 32 bits: what stands in the first two groups.
fn within_v6(address: Ipv6Addr, network: [u16; 2], bits: u32) -> bool {
    let first = |groups: [u16; 2]| u32::from(groups[0]) << 16 | u32::from(groups[1]);
    let [one, two, ..] = address.segments();
    (first([one, two]) ^ first(network)) >> (32 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_public_internet_is_refused() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in refused {
            assert!(!is_global(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_public_internet_is_allowed_up_to_the_edges() {
        let allowed = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2a00::1",
            "3ffe::1",
        ];
        for address in allowed {
            assert!(is_global(address.parse().unwrap()), "{address}");
        }
    }
}
