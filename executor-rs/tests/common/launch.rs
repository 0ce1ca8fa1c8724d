//! Starts the real program as a worker on the stage's Redis.

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, Stdio};

use serde_json::Value;

use super::{ports, until, Stage, Worker};

impl Stage {
    /// What the program says where it does not start.
    pub fn refused(&self, settings: &[(&str, &str)]) -> String {
        let mut child = self.program(settings).spawn().unwrap();
        let mut log = child.stderr.take().unwrap();
        let ended = Worker {
            child,
            address: String::new(),
        }
        .ended();
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap();
        assert_eq!(ended, Some(1), "{said}");
        said
    }

    fn program(&self, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(super::super::common::PROGRAM);
        command
            .env("OCTOLLM_REDIS_URL", self.url())
            .env("OCTOLLM_TOPOLOGY_FILE", self.topology())
            .env("OCTOLLM_EXECUTOR_WORKSPACE_DIR", self.workspaces())
            .env("OCTOLLM_LOG_FORMAT", "json")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    pub fn worker(&self, settings: &[(&str, &str)]) -> Worker {
        let (worker, log) = self.worker_and_log(settings);
        // Read to the end, so that no line is dropped; shown where a test fails.
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .for_each(|line| println!("{line}"));
        });
        worker
    }

    /// A worker on a port of its own that logs to that file, once it listens.
    pub fn worker_logging_to(&self, log: std::fs::File) -> Worker {
        let address = format!("127.0.0.1:{}", ports::free_port());
        let mut command = self.program(&[("OCTOLLM_EXECUTOR_METRICS_LISTEN", &address)]);
        let child = command.stderr(log).spawn().unwrap();
        until("it listens", || {
            std::net::TcpStream::connect(&address).is_ok()
        });
        Worker { child, address }
    }

    /// The worker, and its log after the line with its address; nobody reads on.
    pub fn worker_and_log(&self, settings: &[(&str, &str)]) -> (Worker, BufReader<ChildStderr>) {
        let mut child = self.program(settings).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        // Other tasks of the program may have something to say before it listens.
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "ended before it listened"
            );
            let said: Value = serde_json::from_str(&line).expect("a line of the log");
            if let Some(address) = said["address"].as_str() {
                break address.to_owned();
            }
        };
        (Worker { child, address }, log)
    }
}
