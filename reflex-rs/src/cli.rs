//! The command line. Everything else is configured by settings.

pub const HELP: &str = "\
octollm-reflex: admits submissions from HTTP, webhooks and ingest streams, and puts them on the task streams of OctoLLM.

Usage: octollm-reflex [--help | --version | --healthcheck]

--healthcheck checks whether the reflex that runs with the same settings is ready, and exits with 0 or 1.

Settings come from the file named in OCTOLLM_CONFIG and from environment variables, for example:
  OCTOLLM_REDIS_URL       address of Redis
  OCTOLLM_REFLEX_LISTEN   loopback address and port to serve HTTP on; port 0 picks a free one
  OCTOLLM_REFLEX_TRUST_NETWORK   true allows other addresses; use it only where the network itself controls access
  OCTOLLM_REFLEX_DURABILITY      durability that every 202 requires: auto, fsync, replicated or stored
  OCTOLLM_TOPOLOGY_FILE   topology file, instead of the shipped streams.yaml
  OCTOLLM_WEBHOOKS_FILE   webhook sources and the names of their secrets, instead of the shipped webhooks.yaml
  OCTOLLM_API_URL         address of `octollm api`, which answers older reads
  OCTOLLM_LOG_LEVEL       debug, info, warning or error
SIGTERM stops it gracefully. Exit codes: 0 stopped gracefully, 1 failed while starting or running, 2 wrong arguments or settings.
";

/// What the command line requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run,
    Help,
    Version,
    Healthcheck,
    /// An unknown argument.
    Unknown(String),
}

/// Parses the arguments after the program's name.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Command {
    match arguments.into_iter().next() {
        None => Command::Run,
        Some(text) if text == "--help" || text == "-h" => Command::Help,
        Some(text) if text == "--version" || text == "-V" => Command::Version,
        Some(text) if text == "--healthcheck" => Command::Healthcheck,
        Some(text) => Command::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, Command};

    #[test]
    fn only_the_known_arguments_are_taken() {
        let given = |text: &str| parse([text.to_owned()]);
        assert_eq!(parse([]), Command::Run);
        assert_eq!(given("--help"), Command::Help);
        assert_eq!(given("-V"), Command::Version);
        assert_eq!(given("--healthcheck"), Command::Healthcheck);
        assert_eq!(given("--port"), Command::Unknown("--port".into()));
    }
}
