//! `doctor`: which isolation this machine gives, as a flat object that `octollm doctor` reads too.

use std::process::ExitCode;

use contracts::settings::{self, MinIsolation};
use serde_json::{Map, Value};
use service::console::print_line;

use crate::isolation;
use crate::sandbox::landlock;

/// Examine the machine and print the facts. The exit code is 0 when the isolation that the settings ask for is reached.
pub async fn run(json: bool) -> ExitCode {
    let (reached, facts) = examine().await;
    if json {
        print_line(&Value::Object(facts).to_string());
    } else {
        for (name, value) in &facts {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            print_line(&format!("{name:<14} {value}"));
        }
    }
    if reached {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn examine() -> (bool, Map<String, Value>) {
    let mut facts = Map::new();
    let mut put = |name: &str, value: String| {
        facts.insert(name.to_owned(), Value::String(value));
    };
    let settings = match settings::load() {
        Ok(settings) => settings.executor,
        Err(error) => {
            put("isolation", "none".to_owned());
            put("todo", error.to_string());
            return (false, facts);
        }
    };
    let minimum = match settings.min_isolation {
        MinIsolation::Namespaces => "namespaces",
        MinIsolation::Landlock => "landlock",
    };
    let found = isolation::find(&settings).await;
    let tier = found.as_ref().map_or("none", |found| found.tier().as_str());
    put("isolation", tier.to_owned());
    put("min_isolation", minimum.to_owned());
    put("landlock_abi", landlock::abi().to_string());
    match &found {
        Ok(found) => {
            let python = &found.runner.runtimes.python.program;
            put("features", found.features.join(" "));
            put("python", python.display().to_string());
            if let Some(reason) = &found.weaker_because {
                put("weaker_because", reason.clone());
            }
        }
        Err(error) => put("todo", error.to_string()),
    }
    (found.is_ok(), facts)
}
