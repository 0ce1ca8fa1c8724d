//! How many connections each client has open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections of each client and refuses those beyond the limit.
///
/// A client is an IPv4 address or an IPv6 network of 64 bits, which is what one host gets. Clients on a loopback address
/// are not counted: a proxy on the same host brings the connections of everyone.
pub(super) struct ClientSlots {
    /// 0: no limit.
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl ClientSlots {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: Mutex::default(),
        })
    }

    /// Returns what the connection holds until it ends, or `None` if the client has too many.
    pub fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<ClientSlot> {
        let address = address.to_canonical();
        if self.limit == 0 || address.is_loopback() {
            return Some(ClientSlot(None));
        }
        let client = network_of(address);
        let mut open = self.lock();
        let count = open.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(ClientSlot(Some((Arc::clone(self), client))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

/// The place of one connection.
pub(super) struct ClientSlot(Option<(Arc<ClientSlots>, IpAddr)>);

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let Some((slots, client)) = &self.0 else {
            return;
        };
        let mut open = slots.lock();
        if let Some(count) = open.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                open.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClientSlots;

    #[test]
    fn each_client_has_its_own_limit() {
        let slots = ClientSlots::new(2);
        let acquire = |address: &str| slots.acquire(address.parse().unwrap());
        let first = acquire("192.0.2.1");
        let second = acquire("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(acquire("192.0.2.1").is_none());
        assert!(acquire("192.0.2.2").is_some());
        drop(first);
        let again = acquire("192.0.2.1");
        assert!(again.is_some());
        let held = [acquire("2001:db8::1"), acquire("2001:db8::2:0:0:1")];
        assert!(held.iter().all(Option::is_some));
        assert!(acquire("2001:db8::3").is_none(), "the same network");
        assert!(acquire("2001:db8:0:1::3").is_some());
        drop((second, again, held));
        assert!(slots.lock().is_empty());
    }

    #[test]
    fn loopback_addresses_and_a_limit_of_0_are_not_counted() {
        let (none, one) = (ClientSlots::new(0), ClientSlots::new(1));
        let held: Vec<_> = (0..5)
            .map(|_| {
                (
                    none.acquire([192, 0, 2, 1].into()),
                    one.acquire([127, 0, 0, 1].into()),
                )
            })
            .collect();
        assert!(held
            .iter()
            .all(|(other, local)| other.is_some() && local.is_some()));
    }
}
