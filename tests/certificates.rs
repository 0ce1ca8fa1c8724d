//! Certificates for a Redis with TLS; both programs' tests include this file. `tests/helpers/certificates.py` does the same.

use std::path::{Path, PathBuf};
use std::process::Command;

const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// Makes a certificate authority; returns its certificate.
pub fn authority(folder: &Path, name: &str) -> PathBuf {
    let certificate = folder.join(format!("{name}.crt"));
    let key = certificate.with_extension("key");
    let subject = format!("/CN={name}");
    let made = [
        "-keyout",
        text(&key),
        "-out",
        text(&certificate),
        "-days",
        "2",
        "-subj",
        &subject,
    ];
    openssl(&[&["req", "-x509"][..], &KEY, &made].concat());
    certificate
}

/// The words of CONFIG SET that let a server listen on a port with TLS as well, with a certificate for 127.0.0.1 that
/// `ca` has signed.
pub fn serve_tls(ca: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| ca.with_file_name(name);
    let (key, request, certificate) = (file("server.key"), file("server.csr"), file("server.crt"));
    let names = file("names");
    std::fs::write(&names, "subjectAltName=IP:127.0.0.1\n").unwrap();
    let made = [
        "-keyout",
        text(&key),
        "-out",
        text(&request),
        "-subj",
        "/CN=server",
    ];
    openssl(&[&["req"][..], &KEY, &made].concat());
    let ca_key = ca.with_extension("key");
    openssl(&[
        "x509",
        "-req",
        "-CA",
        text(ca),
        "-CAkey",
        text(&ca_key),
        "-in",
        text(&request),
        "-out",
        text(&certificate),
        "-days",
        "2",
        "-extfile",
        text(&names),
    ]);
    let port = port.to_string();
    let words = [
        ("tls-ca-cert-file", text(ca)),
        ("tls-cert-file", text(&certificate)),
        ("tls-key-file", text(&key)),
        ("tls-auth-clients", "no"),
        ("tls-port", &port),
    ];
    let words = words
        .iter()
        .flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]);
    words.collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(arguments: &[&str]) {
    let made = Command::new("openssl").args(arguments).output().unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}
