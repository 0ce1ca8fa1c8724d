//! A free TCP port on loopback for a server of a Rust test; both programs' tests include this file.
//!
//! As `devstack/embedded/ports.py` takes them: below those that the kernel hands out, so that none becomes a
//! connection's own end while its server is down, and claimed under the same name, so that none is taken twice.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::SystemTime;

const LOWEST: u16 = 20_000;
const FEWEST: u16 = 1000;
const TRIES: u32 = 1000;

/// Stays claimed until the test program ends.
pub fn free_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let handed_out: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let choice = handed_out.saturating_sub(LOWEST);
    (0..TRIES).find_map(|_| claimed(choice)).unwrap()
}

/// A port among so many, or, where there are too few, one that the kernel hands out now.
fn claimed(choice: u16) -> Option<u16> {
    let now = SystemTime::UNIX_EPOCH.elapsed().ok()?.subsec_nanos();
    let wanted = if choice < FEWEST {
        0
    } else {
        LOWEST + u16::try_from(now % u32::from(choice)).ok()?
    };
    let listener = TcpListener::bind(("127.0.0.1", wanted)).ok()?;
    let port = listener.local_addr().ok()?.port();
    let name = SocketAddr::from_abstract_name(format!("octollm-port-{port}")).ok()?;
    std::mem::forget(UnixListener::bind_addr(&name).ok()?);
    Some(port)
}
