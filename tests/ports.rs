//! A free TCP port on loopback for a server of a Rust test; both programs' tests include this file.
//!
//! As `runtime/embedded/ports.py` takes them: below those that the kernel hands out, so that none becomes a
//! connection's own end while its server is away, and claimed under the same name, so that none is taken twice.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::SystemTime;

const LOWEST: u16 = 20_000;

/// Stays claimed until the test program ends.
pub fn free_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let handed_out: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    loop {
        let port = if handed_out > LOWEST {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            LOWEST + u16::try_from(now % u32::from(handed_out - LOWEST)).unwrap()
        } else {
            0
        };
        let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else {
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let name = SocketAddr::from_abstract_name(format!("octollm-port-{port}")).unwrap();
        if let Ok(claim) = UnixListener::bind_addr(&name) {
            std::mem::forget(claim);
            return port;
        }
    }
}
