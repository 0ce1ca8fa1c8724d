//! The command line. Everything else is configured by settings.

use clap::Parser;

const ABOUT: &str = "\
Admits submissions from HTTP, webhooks and ingest streams, and puts them on the task streams of OctoLLM.
Runs until SIGTERM, which stops it gracefully.";
const AFTER_HELP: &str = "\
Settings come from the file named in OCTOLLM_CONFIG and from environment variables, for example:
  OCTOLLM_REDIS_URL             address of Redis
  OCTOLLM_REFLEX_LISTEN         address and port to serve HTTP on; port 0 picks a free one
  OCTOLLM_REFLEX_ANONYMOUS      who needs no credential: auto (on a loopback address), on (anyone) or off
  OCTOLLM_REFLEX_CREDENTIALS_FILE  issuers of tokens (JWT); without it only API keys are accepted
  OCTOLLM_REFLEX_DURABILITY     durability that every 202 requires: auto, fsync, replicated or stored
  OCTOLLM_TOPOLOGY_FILE         topology file, instead of the shipped streams.yaml
  OCTOLLM_WEBHOOKS_FILE         webhook sources and the names of their secrets, instead of the shipped webhooks.yaml
  OCTOLLM_API_URL               address of `octollm api`, which answers older reads
  OCTOLLM_LOG_LEVEL             debug, info, warning or error

Exit codes: 0 stopped gracefully, 1 failed while starting or running, 2 wrong arguments or settings.";

/// The arguments.
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(name = "octollm-reflex", version, about = ABOUT, after_help = AFTER_HELP)]
pub struct Cli {
    /// Check whether the reflex that runs with the same settings is ready, and exit with 0 or 1.
    #[arg(long)]
    pub healthcheck: bool,

    /// Check the settings and every file they name, print each fault, and exit with 0 or 1. Connects to nothing.
    #[arg(long, conflicts_with = "healthcheck")]
    pub check_config: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Cli;

    #[test]
    fn only_the_known_arguments_are_accepted() {
        let parse = |arguments: &[&str]| {
            let program = ["octollm-reflex"];
            Cli::try_parse_from(program.iter().chain(arguments)).map(|cli| cli.healthcheck)
        };
        assert!(!parse(&[]).unwrap());
        assert!(parse(&["--healthcheck"]).unwrap());
        assert!(!parse(&["--check-config"]).unwrap());
        assert!(parse(&["--check-config", "--healthcheck"]).is_err());
        for unknown in ["--port", "run"] {
            let error = parse(&[unknown]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
