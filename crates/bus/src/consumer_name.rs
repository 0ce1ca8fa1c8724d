//! The name of this process in its consumer groups.

/// The configured name, or `<program>-<host>-<process id>-<random>`, which no other process has.
#[must_use]
pub fn consumer_name(program: &str, configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |character: &char| character.is_ascii_alphanumeric() || "._-".contains(*character);
    let host: String = host.trim().chars().filter(plain).take(64).collect();
    let random = crate::backoff::random_number();
    format!("{program}-{host}-{}-{random:08x}", std::process::id())
}
