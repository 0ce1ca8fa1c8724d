//! What a value may look like.

use super::{Settings, SettingsError};

/// Whether every value can be worked with; what a type says already is not looked at again.
pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
    let redis = &settings.redis;
    let known = ["redis://", "rediss://", "unix://"]
        .iter()
        .any(|scheme| redis.url.starts_with(scheme));
    ensure(
        known,
        "redis.url",
        "must start with redis://, rediss:// or unix://, like redis://127.0.0.1:6379/0",
    )?;
    ensure(
        redis.ca_file.is_empty() || redis.url.starts_with("rediss://"),
        "redis.ca_file",
        "must be empty unless redis.url starts with rediss://",
    )?;
    ensure(
        redis.connect_timeout_s > 0.0 && redis.connect_timeout_s <= 60.0,
        "redis.connect_timeout_s",
        "must be above 0 and at most 60",
    )?;
    check_reflex(settings)?;
    let (reflex, executor) = (&settings.reflex, &settings.executor);
    for (name, value) in [
        ("reflex.header_timeout_s", reflex.header_timeout_s),
        ("reflex.idle_timeout_s", reflex.idle_timeout_s),
        ("reflex.body_timeout_s", reflex.body_timeout_s),
        ("reflex.drain_s", reflex.drain_s),
        ("reflex.durability_wait_s", reflex.durability_wait_s),
        ("executor.drain_s", executor.drain_s),
        (
            "worker.circuit_breaker_cooldown_s",
            settings.worker.circuit_breaker_cooldown_s,
        ),
    ] {
        ensure(
            (1..=86_400).contains(&value),
            name,
            "must be from 1 to 86400",
        )?;
    }
    ensure(
        settings.worker.circuit_breaker_tasks <= 1000,
        "worker.circuit_breaker_tasks",
        "must be from 0 to 1000",
    )?;
    for (name, value) in [
        ("reflex.listen", &reflex.listen),
        ("executor.metrics_listen", &executor.metrics_listen),
    ] {
        let valid = value.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && (host.starts_with('[') == host.ends_with(']'))
                && (host.starts_with('[') || !host.contains(':'))
                && port.parse::<u16>().is_ok()
        });
        ensure(
            valid,
            name,
            "must be host:port with a port from 0 to 65535, like 127.0.0.1:8080",
        )?;
    }
    for (name, value) in [
        ("reflex.consumer", &reflex.consumer),
        ("executor.consumer", &executor.consumer),
    ] {
        let valid = value.len() <= 128
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
        ensure(
            valid,
            name,
            "must be at most 128 letters, digits, ., _, : or -",
        )?;
    }
    Ok(())
}

fn check_reflex(settings: &Settings) -> Result<(), SettingsError> {
    let reflex = &settings.reflex;
    ensure(
        (1024..=64 * 1024 * 1024).contains(&reflex.body_limit_bytes),
        "reflex.body_limit_bytes",
        "must be from 1024 to 67108864",
    )?;
    ensure(
        (1..=1_000_000).contains(&reflex.max_connections),
        "reflex.max_connections",
        "must be from 1 to 1000000",
    )?;
    for (name, value) in [
        ("reflex.max_submissions", reflex.max_submissions),
        ("reflex.max_event_streams", reflex.max_event_streams),
        ("reflex.max_forwards", reflex.max_forwards),
    ] {
        ensure(
            (1..=100_000).contains(&value),
            name,
            "must be from 1 to 100000",
        )?;
    }
    ensure(
        reflex.max_connections_per_client <= 1_000_000,
        "reflex.max_connections_per_client",
        "must be from 0 to 1000000",
    )?;
    ensure(
        reflex.cors_origins().all(is_origin),
        "reflex.cors_origins",
        "must be origins like https://app.example.org, without a path, separated by commas",
    )?;
    let api = &settings.api.url;
    ensure(
        api.is_empty() || is_plain_http(api),
        "api.url",
        "must be http://host:port without a path, like http://127.0.0.1:8081; \
         the reflex reaches the API inside one network, without TLS",
    )?;
    let secret = settings.api.secret.expose().chars().count();
    ensure(
        secret == 0 || secret >= 32,
        "api.secret",
        "must have at least 32 characters, like the output of `openssl rand -hex 32`",
    )?;
    ensure(
        (1..=31_536_000).contains(&reflex.idempotency_ttl_s),
        "reflex.idempotency_ttl_s",
        "must be from 1 to 31536000, which is a year",
    )?;
    ensure(
        (1..=16).contains(&reflex.durability_replicas),
        "reflex.durability_replicas",
        "must be from 1 to 16",
    )
}

/// `http://host` or `http://host:port`, with or without a slash at its end.
fn is_plain_http(url: &str) -> bool {
    url.strip_prefix("http://").is_some_and(|rest| {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    })
}

/// `http://host`, `https://host`, with or without a port. Nothing else can stand in the header `Origin`.
fn is_origin(origin: &str) -> bool {
    let rest = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    let Some(rest) = rest else {
        return false;
    };
    let (host, port) = rest.split_once(':').unwrap_or((rest, "0"));
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    !host.is_empty() && host.bytes().all(is_host_byte) && port.parse::<u16>().is_ok()
}

fn ensure(holds: bool, key: &str, must: &str) -> Result<(), SettingsError> {
    if holds {
        Ok(())
    } else {
        Err(SettingsError(format!("setting {key} is refused: {must}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::settings::load_from;

    #[test]
    fn a_redis_url_that_a_program_cannot_use_is_refused() {
        let load = |url: &str| {
            load_from(&BTreeMap::from([(
                "OCTOLLM_REDIS_URL".to_owned(),
                url.to_owned(),
            )]))
        };
        for url in [
            "redis://127.0.0.1:6379/0",
            "rediss://h/0",
            "unix:///run/redis.sock",
        ] {
            assert!(load(url).is_ok(), "{url}");
        }
        for url in ["http://127.0.0.1", "redis:127.0.0.1", "rediss", ""] {
            let refused = load(url).map(drop).map_err(|error| error.to_string());
            assert!(
                refused.is_err_and(
                    |text| text.contains("redis.url is refused: must start with redis://")
                ),
                "{url}"
            );
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_no_secret_is_shown() {
        let load = |secret: &str| {
            let variable = ("OCTOLLM_API_SECRET".to_owned(), secret.to_owned());
            load_from(&BTreeMap::from([variable]))
        };
        let short = "canary".repeat(5);
        let refused = load(&short).map(drop).unwrap_err().to_string();
        assert!(refused.contains("api.secret is refused: must have at least 32"));
        assert!(!refused.contains("canary"), "{refused}");
        let settings = load(&"canary".repeat(6)).unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
        assert!(load("").is_ok());
    }

    #[test]
    fn only_origins_may_be_named_for_cors() {
        let load = |origins: &str| {
            let name = "OCTOLLM_REFLEX_CORS_ORIGINS".to_owned();
            load_from(&BTreeMap::from([(name, origins.to_owned())]))
        };
        let two = load("https://app.example.org, http://localhost:3000").unwrap();
        let origins: Vec<_> = two.reflex.cors_origins().collect();
        assert_eq!(
            origins,
            ["https://app.example.org", "http://localhost:3000"]
        );
        assert_eq!(load("").unwrap().reflex.cors_origins().count(), 0);
        for refused in [
            "*",
            "null",
            "app.example.org",
            "https://a/",
            "https://a:x",
            "https://",
        ] {
            let error = load(refused).map(drop).map_err(|error| error.to_string());
            assert!(
                error.is_err_and(|text| text.contains("reflex.cors_origins is refused")),
                "{refused}"
            );
        }
    }

    /// Every number that a Rust program reads: its setting, its smallest and its largest value.
    const NUMBERS: [(&str, &str, f64, f64); 17] = [
        ("redis", "connect_timeout_s", 0.001, 60.0),
        ("reflex", "body_limit_bytes", 1024.0, 67_108_864.0),
        ("reflex", "max_connections", 1.0, 1e6),
        ("reflex", "max_connections_per_client", 0.0, 1e6),
        ("reflex", "max_submissions", 1.0, 1e5),
        ("reflex", "header_timeout_s", 1.0, 86_400.0),
        ("reflex", "idle_timeout_s", 1.0, 86_400.0),
        ("reflex", "body_timeout_s", 1.0, 86_400.0),
        ("reflex", "idempotency_ttl_s", 1.0, 31_536_000.0),
        ("reflex", "durability_replicas", 1.0, 16.0),
        ("reflex", "durability_wait_s", 1.0, 86_400.0),
        ("reflex", "drain_s", 1.0, 86_400.0),
        ("reflex", "max_event_streams", 1.0, 1e5),
        ("reflex", "max_forwards", 1.0, 1e5),
        ("executor", "drain_s", 1.0, 86_400.0),
        ("worker", "circuit_breaker_tasks", 0.0, 1000.0),
        ("worker", "circuit_breaker_cooldown_s", 1.0, 86_400.0),
    ];

    #[test]
    fn every_number_has_bounds_and_is_refused_beyond_them() {
        let load = |name: &str, value: &str| {
            let loaded = load_from(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
            loaded.map(drop).map_err(|error| error.to_string())
        };
        for (section, key, smallest, largest) in NUMBERS {
            let setting = format!("{section}.{key}");
            let variable = format!("OCTOLLM_{}", setting.to_uppercase().replace('.', "_"));
            for fits in [smallest, largest] {
                assert_eq!(load(&variable, &fits.to_string()), Ok(()), "{setting}");
            }
            let beyond = [
                (smallest - 1.0).to_string(),
                (largest + 1.0).to_string(),
                "9223372036854775807".to_owned(),
                "-9223372036854775808".to_owned(),
                "1e400".to_owned(),
                "nan".to_owned(),
                "inf".to_owned(),
                "x".to_owned(),
            ];
            for value in beyond {
                let refused = load(&variable, &value);
                let says_what = |text: &String| {
                    (text.contains(&setting) || text.contains(&variable))
                        && text.contains("must be")
                };
                assert!(
                    refused.as_ref().is_err_and(says_what),
                    "{setting} = {value}: {refused:?}"
                );
            }
        }
    }

    #[test]
    fn no_number_is_without_bounds() {
        let defaults: toml::Table = crate::settings::DEFAULTS.parse().unwrap();
        // Only Python reads the other sections, and these keys.
        let of_python = ["drain_s"];
        for section in [
            "redis", "reflex", "executor", "worker", "api", "webhooks", "log", "topology",
        ] {
            let keys = defaults[section].as_table().unwrap();
            for (key, value) in keys {
                let number = value.is_integer() || value.is_float();
                let known = NUMBERS
                    .iter()
                    .any(|one| (one.0, one.1) == (section, key.as_str()));
                let skipped = section == "worker" && of_python.contains(&key.as_str());
                assert!(!number || known || skipped, "{section}.{key} has no bounds");
            }
        }
    }
}
