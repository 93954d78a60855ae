//! core: how many connections each peer address has open.
//!
//! As many entries as connections, so the map needs no bound of its own.

use foldhash::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bits of an IPv6 address that one customer cannot choose at will.
const IPV6_NETWORK: u128 = !0 << 64;

/// Counts, when there is a limit. A blocking mutex guards the map: held for one look-up, never across an await.
#[derive(Debug)]
pub(super) struct Addresses {
    max: Option<u32>,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection among those of its address, until dropped.
#[derive(Debug)]
pub(super) struct Visit(Option<(Arc<Addresses>, IpAddr)>);

impl Addresses {
    pub(super) fn new(max: Option<u32>) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default() })
    }

    /// `None` when the address has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Visit> {
        let Some(max) = self.max else { return Some(Visit(None)) };
        let address = network(address);
        let mut open = self.open();
        let count = open.entry(address).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Visit(Some((Arc::clone(self), address))))
    }

    fn leave(&self, address: IpAddr) {
        let mut open = self.open();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some((addresses, address)) = self.0.take() {
            addresses.leave(address);
        }
    }
}

/// Whom an address stands for: itself, or with IPv6 the network it was drawn from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_and_again_when_one_leaves() {
        let addresses = Addresses::new(Some(2));
        let (_one, two) = (addresses.enter(ip("10.0.0.1")).unwrap(), addresses.enter(ip("::ffff:10.0.0.1")).unwrap());
        assert!(addresses.enter(ip("10.0.0.1")).is_none());
        assert!(addresses.enter(ip("10.0.0.2")).is_some(), "another address has its own");
        drop(two);
        assert!(addresses.enter(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn one_ipv6_network_is_one_peer() {
        let addresses = Addresses::new(Some(1));
        let _one = addresses.enter(ip("2001:db8:1:2::1")).unwrap();
        assert!(addresses.enter(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(addresses.enter(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_who_has_left() {
        let addresses = Addresses::new(Some(1));
        drop(addresses.enter(ip("10.0.0.1")));
        assert!(addresses.open().is_empty());
    }
}
