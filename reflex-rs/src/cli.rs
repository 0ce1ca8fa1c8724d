//! The command line: everything is configured by settings, so there is little to say here.

pub const HELP: &str = "\
octollm-reflex: OctoLLM's door. Vets submissions from HTTP and from ingest streams and puts them on the task streams.

Usage: octollm-reflex [--help | --version | --healthcheck]

--healthcheck asks the reflex that runs with the same settings whether it is ready, and exits with 0 or 1.

Settings come from the file named in OCTOLLM_CONFIG and from the environment, like
  OCTOLLM_REDIS_URL       where Redis is
  OCTOLLM_REFLEX_LISTEN   where to serve HTTP; a loopback address with a port, port 0 picks a free one
  OCTOLLM_REFLEX_TRUST_NETWORK   true allows other addresses, where the network lets nobody in who may not submit
  OCTOLLM_REFLEX_DURABILITY      what a 202 needs: auto, fsync, replicated or stored
  OCTOLLM_TOPOLOGY_FILE   another streams.yaml
  OCTOLLM_WEBHOOKS_FILE   another webhooks.yaml, which also says where the secrets lie
  OCTOLLM_API_URL         where `octollm api` listens; older reads are forwarded there
  OCTOLLM_LOG_LEVEL       debug, info, warning or error
SIGTERM ends it in order. Exit codes: 0 ended in order, 1 failed while starting or running, 2 wrong arguments or settings.
";

/// What the caller wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run,
    Help,
    Version,
    Healthcheck,
    /// An argument that is not known.
    Unknown(String),
}

/// Reads the arguments behind the program's name; the first one that means something counts.
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
